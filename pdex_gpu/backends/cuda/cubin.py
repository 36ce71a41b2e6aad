"""The binaries that NVRTC makes: 64-bit ELF files with headers that give their length."""

from __future__ import annotations

import struct

from ...errors import BackendError

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NO_BITS = 8  # SHT_NOBITS: a section that takes no room in the file


def completed(binary: bytes, filename: str) -> bytes:
    """Return a cubin with all its bytes.

    ``getCUBIN`` of CuPy (13.6 to 14.2) drops the last byte because it takes it for the NUL at the
    end of a text. The header tables come last in the file, and they end in the most significant
    byte of a 64-bit alignment or size, which is 0. So the byte can be restored.

    Parameters
    ----------
    binary : bytes
        The cubin as CuPy returns it.
    filename : str
        Name of the source file, for the error.

    Raises
    ------
    pdex_gpu.errors.BackendError
        If it is not an ELF file, or lacks bytes that cannot be restored.
    """
    try:
        length, tables_end = _ends(binary + b"\0")
    except (struct.error, ValueError):
        length, tables_end = 0, 0
    if 0 < length <= len(binary):
        return binary
    if length == tables_end == len(binary) + 1:
        return binary + b"\0"
    should = f"declares {length:,} bytes" if length else "is not a complete ELF file"
    raise BackendError(
        f"The CUDA binary of {filename} cannot be used: CuPy returned {len(binary):,} bytes, but "
        f"the binary {should}. Install CuPy again (pdex-gpu doctor says how), or use backend='cpu'."
    )


def _ends(binary: bytes) -> tuple[int, int]:
    """Return where an ELF file ends by its headers, and where the last of their tables ends.

    Raises
    ------
    ValueError, struct.error
        If the bytes are not an ELF file, or end before its tables do.
    """
    if not binary.startswith(_MAGIC):
        raise ValueError("not a 64-bit ELF file")
    header = _HEADER.unpack_from(binary)
    segments, sections = header[5:7]
    segment_bytes, n_segments, section_bytes, n_sections = header[9:13]
    end = tables_end = max(
        _HEADER.size, segments + segment_bytes * n_segments, sections + section_bytes * n_sections
    )
    for k in range(n_sections):
        section = _SECTION.unpack_from(binary, sections + k * section_bytes)
        kind, offset, size = section[1], section[4], section[5]
        if kind != _NO_BITS:
            end = max(end, offset + size)
    return end, tables_end
