"""What follows the backward pass: clipping, optimiser, center and teacher, by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastdino.distributed.buckets import GradientBuckets
from fastdino.distributed.center import SharedMean
from fastdino.distributed.parts import clip_split_gradients, is_split, local
from fastdino.distributed.world import World
from fastdino.ema import update_teacher
from fastdino.loss import DINOLoss, at_least_float32
from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.optim import cancel_gradients_last_layer, clip_gradients
from fastdino.train.precision import Precision

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class StepValues(NamedTuple):
    """Where the schedules stand at one step."""

    epoch: int
    lr: float
    weight_decay: float
    momentum: float


class Update(Protocol):
    """How a step's gradients become new weights. All that a step does between two batches goes through it."""

    forward: nn.Module
    """The student as a step calls it: crops -> logits."""

    norms: Tensor
    """Of the latest unsound step's gradients, before clipping: one a parameter of the student, 0 without gradient."""

    at_fault: Tensor
    """Whether the latest unsound step was so because of this process's own loss or gradients, a bool scalar."""

    def weights(self, last: bool) -> AbstractContextManager[None]:
        """Within it the networks compute with the weights that this update keeps for them; gradients too.

        Where several processes train, those of the step's `last` micro-batch set out for the others as they come.
        """

    def start(self, batches: int) -> None:
        """Forget the gradients of the step before; those of `batches` micro-batches will add up."""

    def observe(self, bottleneck: Tensor, teacher_logits: Tensor) -> None:
        """Take of one micro-batch what the center needs: the prototypes' inputs (R, D) and outputs (R, K).

        To be called before the backward pass, during which it is exchanged.
        """

    def finish(self, values: StepValues, clip_grad: float, freeze_last_layer: int, loss: Tensor) -> Tensor:
        """Move student, center and teacher, unless `loss` or a gradient is unsound in any process: then none of them.

        Returns whether it was, a bool scalar on the device.
        """

    def reload(self) -> None:
        """The weights were changed by others, such as a checkpoint."""


class TorchUpdate:
    """Operation by operation."""

    def __init__(
        self,
        student: MultiCropWrapper,
        teacher: MultiCropWrapper,
        dino_loss: DINOLoss,
        optimizer: Optimizer,
        precision: Precision,
        implementation: str,
        world: World,
    ) -> None:
        self.student, self.teacher, self.dino_loss = student, teacher, dino_loss
        self.optimizer, self.precision, self.implementation = optimizer, precision, implementation
        self.forward: nn.Module = student
        self.world = world
        self.norms = torch.zeros(0)
        self.at_fault = torch.tensor(False)
        self._statistics = Statistics(student, teacher)
        self._teacher_means: list[Tensor] = []
        self._shared_mean = SharedMean(world) if world.size > 1 else None
        self._is_split = is_split(next(student.parameters()))
        self._buckets: GradientBuckets | None = None
        if world.size > 1 and not self._is_split:
            leaves = [parameter for parameter in student.parameters() if parameter.requires_grad]
            self._buckets = GradientBuckets(leaves, [leaf.dtype for leaf in leaves], world.size)

    def weights(self, last: bool) -> AbstractContextManager[None]:
        """Those of the modules."""
        if self._is_split:
            cast("FSDPModule", self.student).set_requires_gradient_sync(last)
        if last and self._buckets is not None:
            self._buckets.expect()
        return nullcontext()

    def start(self, batches: int) -> None:
        """See `Update`."""
        self.optimizer.zero_grad()
        self._statistics.keep()
        self._teacher_means = []
        if self._shared_mean is not None:
            self._shared_mean.start(batches)

    def observe(self, bottleneck: Tensor, teacher_logits: Tensor) -> None:
        """See `Update`."""
        if self._shared_mean is not None:
            self._shared_mean.add(bottleneck)
        else:
            self._teacher_means.append(at_least_float32(teacher_logits).mean(dim=0, keepdim=True))

    def finish(self, values: StepValues, clip_grad: float, freeze_last_layer: int, loss: Tensor) -> Tensor:
        """See `Update`. On a GPU this waits for the step, which the kernels do not."""
        if self._buckets is not None:
            self._buckets.wait()
        norms = gradient_norms([None if p.grad is None else local(p.grad) for p in self.student.parameters()])
        unsound = is_unsound(loss, norms, self.precision, self.world)
        if unsound:
            self.norms, self.at_fault = norms, is_at_fault(loss, norms, self._buckets, self._is_split)
            self._statistics.restore_if(unsound)
            return unsound
        self.precision.unscale_(self.optimizer)
        if clip_grad and self._is_split:
            clip_split_gradients(self.student, clip_grad)
        elif clip_grad:
            clip_gradients(self.student, clip_grad)
        cancel_gradients_last_layer(values.epoch, self.student, freeze_last_layer)
        self.precision.step(self.optimizer)
        # Micro-batches are equally large, so the mean of their means is the mean over the whole batch.
        self.dino_loss.move_center(self._mean_logits())
        update_teacher(self.teacher, self.student, values.momentum, self.implementation)
        return unsound

    def reload(self) -> None:
        """Nothing is kept of them."""

    @torch.no_grad()
    def _mean_logits(self) -> Tensor:
        if self._shared_mean is not None:
            return cast(DINOHead, self.teacher.head).last_layer(self._shared_mean.result())
        return torch.cat(self._teacher_means).mean(dim=0, keepdim=True)


class Statistics:
    """Running statistics (BatchNorm's), which move in the forward pass, before anybody knows that it is unsound."""

    def __init__(self, *networks: nn.Module) -> None:
        self._buffers = [b for network in networks for b in network.buffers() if b.is_floating_point()]
        self._before: list[Tensor] = []

    def keep(self) -> None:
        """Remember them as they are."""
        self._before = [buffer.clone() for buffer in self._buffers]

    def restore_if(self, unsound: Tensor) -> None:
        """Bring them back where `unsound`, without asking the device whether it is."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(unsound, before, buffer))


@torch.no_grad()
def gradient_norms(gradients: Sequence[Tensor | None]) -> Tensor:
    """L2 norms, one a gradient, 0 for None; (len(gradients),) on the gradients' device."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return torch.zeros(len(gradients))
    norms = iter(torch._foreach_norm(present, dtype=torch.promote_types(present[0].dtype, torch.float32)))
    zero = torch.zeros((), dtype=torch.promote_types(present[0].dtype, torch.float32), device=present[0].device)
    return torch.stack([zero if gradient is None else next(norms) for gradient in gradients])


def is_unsound(loss: Tensor, norms: Tensor, precision: Precision, world: World) -> Tensor:
    """Whether in any process the loss or a gradient is no finite number: a bool scalar on their device.

    Where the loss is scaled, gradients that are not finite are the scaler's business, which lowers the scale.
    """
    sound = loss.isfinite()
    if precision.scaler is None:
        sound = sound & norms.isfinite().all()
    return world.any(~sound)


def is_at_fault(loss: Tensor, norms: Tensor, buckets: GradientBuckets | None, split: bool = False) -> Tensor:
    """Whether it is this process's own loss or gradients that are not finite: a bool scalar on their device.

    Gradients in `buckets` are those of all processes by now, of which `norms` tell nothing; so are those of `split`
    networks, which were nobody's own.
    """
    own = loss.isfinite()
    if buckets is not None:
        return ~(own & buckets.own_are_finite())
    return ~own if split else ~(own & norms.isfinite().all())
