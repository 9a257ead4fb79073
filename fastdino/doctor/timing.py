"""How long a GPU takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

REPEATS = 20
# Larger than the second-level cache of any GPU: what was read or written before is gone from it.
FLUSHED = 256 * 2**20
BACKLOG = 10
COPIED = 512 * 2**20


def seconds_of(launch: Callable[[], object]) -> float:
    """Median time of a launch on the current GPU, from memory and not from the cache, once it is compiled."""
    other = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")
    for _ in range(3):
        launch()
    pairs = []
    for _ in range(REPEATS):
        # Keeps the GPU busy while the host prepares the launches, which is not to be measured.
        for _ in range(BACKLOG):
            other.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        launch()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs) / 1000


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a plain copy on the device reads and writes."""
    with torch.cuda.device(device):
        source = torch.zeros(COPIED, dtype=torch.int8, device="cuda")
        target = torch.empty_like(source)
        return 2 * COPIED / seconds_of(lambda: target.copy_(source))
