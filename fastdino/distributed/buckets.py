"""Gradients averaged over ranks while the backward pass computes the next ones.

DistributedDataParallel does so too, but puts the gradients in the order in which they came in a process's first step.
In a run that goes on that is another step than in one that was never interrupted: three ranks and more then add up in
another order, and the weights differ in their last bits. Here the order is that of the parameters. Besides, the leaves
may be copies that kernels read in the parameters' place, of another type than these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, distributed

# As many bytes as make a transfer worth its start; DistributedDataParallel takes as many.
BUCKET_BYTES = 25 << 20
# Kernels read gradients from multiples of so many bytes, in whole pieces of it.
ALIGNMENT = 16


class GradientBuckets:
    """Buffers in which the gradients of `leaves` travel, the last leaf first, as the backward pass delivers them.

    Args:
        leaves: tensors that require gradients, in the order of the forward pass.
        dtypes: in which each one's gradient comes, and travels.
        ranks: how many processes.

    Every rank must have the same leaves, and every leaf a gradient on all ranks or on none.
    """

    def __init__(self, leaves: Sequence[Tensor], dtypes: Sequence[torch.dtype], ranks: int) -> None:
        self._ranks = ranks
        self._buckets: list[_Bucket] = []
        self._next = 0
        self._open = False
        sizes = list(zip(leaves, dtypes, strict=True))[::-1]
        for dtype in dict.fromkeys(dtype for _, dtype in sizes):
            self._buckets += _filled([leaf for leaf, of in sizes if of == dtype], dtype)
        self._handles = [
            leaf.register_post_accumulate_grad_hook(partial(self._arrived, bucket))
            for bucket in self._buckets
            for leaf in bucket.views
        ]

    def expect(self) -> None:
        """The next backward pass completes the gradients, which set out as they come."""
        self._open, self._next = True, 0
        for bucket in self._buckets:
            bucket.missing = set(bucket.views)

    def wait(self) -> None:
        """Until all gradients are the means over all ranks."""
        for bucket in self._buckets:
            # Of leaves that took no part; the others' must travel all the same.
            for leaf in bucket.missing:
                bucket.views[leaf].zero_()
            bucket.missing = set()
        self._send_what_is_complete()
        for bucket in self._buckets:
            assert bucket.work is not None
            bucket.work.wait()
        self._open = False

    def own_are_finite(self) -> Tensor:
        """Whether this rank's own gradients of the latest step were: a bool scalar on their device."""
        return torch.stack([bucket.own_sum for bucket in self._buckets]).isfinite().all()

    def remove(self) -> None:
        """Let go of the leaves."""
        for handle in self._handles:
            handle.remove()

    def _arrived(self, bucket: _Bucket, leaf: Tensor) -> None:
        if not self._open:
            return
        view = bucket.views[leaf]
        assert leaf.grad is not None
        # Small enough a share for the sum over ranks to stay in range.
        torch.div(leaf.grad, self._ranks, out=view)
        leaf.grad = view
        bucket.missing.remove(leaf)
        self._send_what_is_complete()

    def _send_what_is_complete(self) -> None:
        # In this order on every rank, or transfers would meet the wrong partners.
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            bucket = self._buckets[self._next]
            # One number, which an infinite or undefined gradient makes so too, before the others' mix with it.
            bucket.own_sum = bucket.flat.sum(dtype=torch.float32)
            bucket.work = distributed.all_reduce(bucket.flat, async_op=True)
            self._next += 1


class _Bucket:
    """A buffer, and the part of it that belongs to each leaf."""

    def __init__(self, leaves: Sequence[Tensor], dtype: torch.dtype) -> None:
        offsets = [0]
        for leaf in leaves:
            offsets.append(offsets[-1] + _room(leaf, dtype))
        self.flat = torch.zeros(offsets[-1], dtype=dtype, device=leaves[0].device)
        self.views = {
            leaf: self.flat[start : start + leaf.numel()].view(leaf.shape)
            for leaf, start in zip(leaves, offsets, strict=False)
        }
        self.missing: set[Tensor] = set()
        self.own_sum = torch.zeros((), device=self.flat.device)
        self.work: distributed.Work | None = None


def _filled(leaves: Sequence[Tensor], dtype: torch.dtype) -> list[_Bucket]:
    buckets, current, size = [], list[Tensor](), 0
    for leaf in leaves:
        current.append(leaf)
        size += _room(leaf, dtype) * dtype.itemsize
        if size >= BUCKET_BYTES:
            buckets.append(_Bucket(current, dtype))
            current, size = [], 0
    return [*buckets, _Bucket(current, dtype)] if current else buckets


def _room(leaf: Tensor, dtype: torch.dtype) -> int:
    whole = ALIGNMENT // dtype.itemsize
    return -(-leaf.numel() // whole) * whole
