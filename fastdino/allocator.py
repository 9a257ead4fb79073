"""How this process's memory is managed."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for what asks next, and say whether it can; for whole programs.

    By itself glibc takes each block of more than 32 MiB from the kernel and gives it back, and the end of the heap too,
    so that every step on a CPU has pages mapped and cleared again that it had before (benchmarks/step.py counts them).
    The peak stays the same; between peaks the process holds on to it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False  # no glibc: musl, macOS, Windows
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
