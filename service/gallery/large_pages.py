"""Memory in pages of two megabytes, for what is read from end to end."""

from __future__ import annotations

import ctypes
import sys

# Of x86-64, and of 64-bit Arm with its usual small pages.
_LARGE_BYTES = 2 << 20
# Numbers of linux/mman.h. The second does at once what the first lets the kernel do in its own time; since Linux 6.1.
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


def ask_for_large_pages(address: int, size: int) -> None:
    """Ask Linux for large pages under the whole ones of a range of private memory that has been written.

    A processor reads ahead within a page and looks up where each one is, so that memory which is not in its caches
    comes a good tenth faster. Where the kernel cannot or will not, everything stays as it is.
    """
    if sys.platform != "linux":
        return
    first, end = -(-address // _LARGE_BYTES), (address + size) // _LARGE_BYTES
    if first >= end:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
        madvise(first * _LARGE_BYTES, (end - first) * _LARGE_BYTES, advice)
