"""What moves the loss's center, averaged over all ranks while the backward pass computes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from fastdino.distributed.world import World
from fastdino.loss import at_least_float32


class SharedMean:
    """The mean over micro-batches and ranks of what the teacher's prototypes are multiplied with, (1, D).

    The center follows the mean of the logits W x (equation 4), which is W mean(x): so D numbers travel, 256 as a rule,
    and not one a prototype.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sum: Tensor | None = None
        self._missing = self._batches = 0
        self._work: distributed.Work | None = None

    def start(self, batches: int) -> None:
        """Those of `batches` equally large micro-batches follow."""
        self._sum, self._missing, self._batches = None, batches, batches

    @torch.no_grad()
    def add(self, bottleneck: Tensor) -> None:
        """(R, D) of one micro-batch. The last one sets out for the other ranks, and nothing waits for it here."""
        mean = at_least_float32(bottleneck).mean(dim=0, keepdim=True)
        self._sum = mean if self._sum is None else self._sum + mean
        self._missing -= 1
        if not self._missing:
            self._sum /= self._batches * self._world.size
            self._work = distributed.all_reduce(self._sum, async_op=True)

    def result(self) -> Tensor:
        """The mean, once it has arrived."""
        assert self._work is not None and self._sum is not None
        self._work.wait()
        return self._sum
