"""Memory-mapped weight files: the pages of weights that are no longer needed leave the resident memory."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from torch import Tensor

_MAPS = Path("/proc/self/maps")


class MappedFiles:
    """The files that are mapped into this process when the object is made; none on other systems than Linux."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        if not _MAPS.exists() or not hasattr(mmap, "MADV_DONTNEED"):
            return
        for line in _MAPS.read_text().splitlines():
            addresses, _, _, _, inode, *_ = line.split()
            if inode != "0":
                start, end = (int(address, 16) for address in addresses.split("-"))
                self._ranges.append((start, end))
        self._madvise = ctypes.CDLL(None).madvise
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def drop_pages(self, tensor: Tensor) -> bool:
        """Drops a tensor's pages from the resident memory, if a file backs all of them.

        Reading the tensor again reads the file again, so it must not have been written to.

        Returns:
            Whether they were dropped.
        """
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if not any(first <= start and end <= last for first, last in self._ranges):
            return False
        first_page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        num_bytes = end // mmap.PAGESIZE * mmap.PAGESIZE - first_page
        return num_bytes > 0 and self._madvise(first_page, num_bytes, mmap.MADV_DONTNEED) == 0
