"""Keep freed memory in the process: on CPUs, training otherwise spends its time in page faults."""

from __future__ import annotations

import ctypes
import sys

#: glibc's mallopt options (malloc.h) and what we set them to.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
SETTINGS = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 512 * 2**20}


def keep_freed_memory() -> bool:
    """Tell glibc's allocator not to hand freed memory back to the system.

    Returns
    -------
    bool
        True where it took effect; False on systems without glibc, where nothing was changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    return all(libc.mallopt(option, value) == 1 for option, value in SETTINGS.items())
