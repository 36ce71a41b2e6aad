"""The meaning of CUDA statuses for the caller: what is at fault, and what can be done.

The numbers are those of ``cudaError_t``, which the runtime and the driver share.
"""

from __future__ import annotations

from ...errors import BackendError, DeviceLostError, KernelError, PdexGpuError
from .driver import INSTALL

OUT_OF_MEMORY = 2

#: No page-locked host memory: none is left, or the operating system refuses or does not support it.
NO_PINNED_MEMORY = {2, 304, 801}

# The device or its driver failed, or others hold it: the same call may work later or elsewhere.
_LOST = {
    3,  # initialization
    46,  # busy or unavailable
    127,  # startup
    214,  # ECC, uncorrectable
    220,  # NVLink, uncorrectable
    226,  # contained error of the hardware
    304,  # operating system
    709,  # context destroyed
    719,  # unspecified failure in work on the device
    802, 805, 806, 807, 808, 809, 810,  # system not ready; the MPS server or its clients
    909,  # timeout
    999,  # unknown
}  # fmt: skip

_TIMED_OUT = 702  # a device with a display limits how long a kernel may take

# A kernel failed. Its process can no longer use the device.
_KERNEL_FAULTS = {
    700,  # illegal address
    710,  # assertion
    714,  # stack
    715,  # illegal instruction
    716,  # misaligned address
    717,  # address space
    718,  # program counter
    721,  # tensor memory leak
}

# The compiled code is not for this device or driver.
_LOADING = {
    98,  # no such kernel for the device
    200,  # no valid binary
    209,  # no binary for the device
    218,  # PTX does not compile
    221, 223,  # the driver has no compiler for PTX, or must not use it
    222,  # PTX of a newer CUDA
    225,  # synchronization that the device does not support
    300, 301, 302, 303,  # source, file, symbol or library of a binary
    500,  # no such symbol
}  # fmt: skip

# Driver, device and CUDA do not fit each other, or the device is not available.
_SETUP = {
    34,  # a stub instead of the driver
    35, 36,  # driver older than the runtime
    100, 101, 102,  # no device, no such device, no licence
    216,  # held by another process
    803, 804,  # versions of driver and library do not fit
}  # fmt: skip


def error_of(status: int, device: str, doing: str, cause: Exception) -> PdexGpuError:
    """Return the error to raise for a status other than out of memory.

    Parameters
    ----------
    status : int
    device : str
        ``"NVIDIA H200, device 0"``.
    doing : str
        What was under way: ``"computing"``; for a launch, the kernel and its shape.
    cause : Exception
        As CuPy raised it.

    Returns
    -------
    DeviceLostError
        The device or its driver failed; other devices can go on.
    KernelError
        A kernel cannot be loaded or started, or failed, as it would on any device of this kind.
    BackendError
        The driver does not fit, or the device is not available.
    """
    if status == _TIMED_OUT:
        return DeviceLostError(
            f"{device}, failed while {doing}: {cause}. Results were discarded. The system stops "
            "kernels that keep a display waiting: use a device without a display, lift the limit, "
            "or use backend='cpu'."
        )
    if status in _LOST:
        return DeviceLostError(
            f"{device}, failed while {doing}: {cause}. Results were discarded. Run again in a new "
            "process. If it happens again, look for Xid lines in the kernel log (dmesg): they "
            "distinguish device faults from driver faults."
        )
    if status in _KERNEL_FAULTS:
        return KernelError(
            f"{device}, failed while {doing}: {cause}. Results were discarded. A kernel "
            "failed, which points to a bug in pdex_gpu: please report it with this text. Until it "
            "is fixed, use backend='cpu' in a new process: this one can no longer use the device."
        )
    if status in _LOADING:
        return KernelError(
            f"{device}, failed while {doing}: {cause}. The code compiled for this device cannot be "
            "loaded. Update the NVIDIA driver, or install the CuPy that matches it "
            f"({INSTALL.format(12)} for CUDA 12), or use backend='cpu'. pdex-gpu doctor shows the "
            "versions."
        )
    if status in _SETUP:
        return BackendError(
            f"{device}, failed while {doing}: {cause}. The driver, the device and CuPy do not "
            "match, or the device is not available. pdex-gpu doctor says what to do; or use "
            "backend='cpu'."
        )
    return KernelError(
        f"{device}, failed while {doing}: {cause}. Results were discarded. This is a fault of "
        "pdex_gpu, not of the device: please report it with this text. Until it is fixed, use "
        "backend='cpu'."
    )
