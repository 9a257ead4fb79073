"""What a training process holds beside its tensors, and what this machine has."""

from __future__ import annotations

import os
import resource
import sys

import torch
from torch import nn

# See `allocator_memory`.
KEPT = 240 * 2**20
SHARE = 0.16


def process_memory() -> int:
    """Bytes that this process holds at most up to here: interpreter and libraries, once a network has run in it.

    Called before anything large is made, and with all that a training imports.
    """
    _first_products()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def allocator_memory(passing: int) -> int:
    """Bytes that a CPU's allocator and libraries hold beside what is alive, of `passing` bytes that come and go.

    glibc gives freed blocks below 32 MiB back only where nothing above them is alive, and the matrix libraries keep
    what they pack matrices into. Fitted to three runs (ViT-Ti/16 of 6 and 16 pictures, ViT-S/16 of 8): with every block
    given back at once (MALLOC_MMAP_THRESHOLD_) the first takes 150 of its 325 MiB less.
    """
    return KEPT + round(SHARE * passing)


def available_memory() -> int:
    """Bytes that could be taken without swapping: the RAM's, on Linux what it has available and its cgroup allows."""
    try:
        with open("/proc/meminfo") as lines:
            sizes = dict(line.split(":") for line in lines)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _first_products() -> None:
    """Have the libraries read in what a network's first passes need of them."""
    for layer, size in ((nn.Conv2d(3, 8, 3), (2, 3, 16, 16)), (nn.Linear(256, 256), (256, 256))):
        layer(torch.zeros(size)).sum().backward()
