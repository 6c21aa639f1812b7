"""Keeping freed memory in the process for the next allocations."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
LARGEST_KEPT = 32 * 1024**2
"""Bytes of the largest block that glibc can keep (half of its HEAP_MAX_SIZE on 64-bit machines)."""
MOST_KEPT = 1024**3
"""Bytes of free memory that are kept in all."""


def keep_freed_memory() -> bool:
    """Make glibc reuse freed blocks instead of returning each of them to the system.

    By default glibc returns memory as soon as a few megabytes are free, and the kernel clears every page that is
    requested again. On a CPU that costs a third of the time of a small network's forward pass. Results do not change.

    Returns:
        Whether it worked; False with other allocators than glibc's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, MOST_KEPT))
