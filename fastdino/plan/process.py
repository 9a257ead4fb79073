"""What a training process holds beside its tensors, and what this machine has."""

from __future__ import annotations

import os
import resource
import sys

import torch
from torch import nn

# See `allocator_memory`.
KEPT = 90 * 2**20
SHARE = 0.16


def process_memory() -> int:
    """Bytes that this process holds at most up to here: interpreter and libraries, once a step has run in it.

    Called before anything large is made, and with all that a training imports.
    """
    _first_step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def allocator_memory(passing: int) -> int:
    """Bytes that a CPU's allocator and libraries hold beside what is alive, of `passing` bytes that come and go.

    glibc gives freed blocks below 32 MiB back only where nothing above them is alive, and the matrix libraries keep
    what they pack matrices into. Fitted to two runs without stochastic depth (ViT-Ti/16 of 6 and 16 pictures: 175 and
    295 MiB); with every block given back at once (MALLOC_MMAP_THRESHOLD_=131072) the first holds 25.
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


def _first_step() -> None:
    """Have the libraries read in what a first step needs of them; torch's optimisers import its compiler."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 14 * 14, 8))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(2, 3, 16, 16)).sum().backward()
    optimizer.step()
