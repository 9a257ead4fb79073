"""What a training process holds beside its tensors, and what this machine has."""

from __future__ import annotations

import os
import resource
import sys

import torch
from torch import nn


def process_memory() -> int:
    """Bytes that this process holds at most up to here: interpreter and libraries, once a network has run in it.

    Called before anything large is made, and with all that a training imports.
    """
    _first_products()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
