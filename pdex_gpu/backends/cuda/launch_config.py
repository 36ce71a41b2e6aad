"""Sizes of blocks, tiles and buffers. Results do not depend on them; tests vary them."""

from __future__ import annotations

from dataclasses import dataclass

#: Most threads per block. A device has 65,536 registers per block and a thread takes up to 255 of
#: them, so blocks of this size can always be started; larger ones cannot.
MOST_THREADS = 256


@dataclass(frozen=True)
class Shapes:
    """The sizes with which kernels are launched.

    Attributes
    ----------
    n_threads : int
        Threads per block, a multiple of 32 up to :data:`MOST_THREADS`.
    shared_bytes : int
        Dynamic shared memory that a block may use for keys; a power of two, at least 8 KiB.
    n_slots : int
        Slices of genes computed at once, each with its own stream and buffers.
    n_buffers, buffer_bytes : int
        Number and size of the page-locked buffers for transfers; at least 64 bytes each.
    slice_bytes : int
        Most device memory of a slice of several genes.
    """

    n_threads: int = 256
    shared_bytes: int = 32 << 10
    n_slots: int = 6
    n_buffers: int = 12
    buffer_bytes: int = 8 << 20
    slice_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if not 32 <= self.n_threads <= MOST_THREADS or self.n_threads % 32:
            raise ValueError(
                f"n_threads={self.n_threads} must be a multiple of 32 up to {MOST_THREADS}."
            )

    def tile(self, key_bytes: int) -> int:
        """Return the keys per tile: two tiles fit in shared memory."""
        return self.shared_bytes // (2 * key_bytes)

    def blocks(self, n_items: int, threads_per_item: int = 1) -> int:
        """Return the blocks needed for `n_items` items of `threads_per_item` threads each."""
        return -(-n_items * threads_per_item // self.n_threads)
