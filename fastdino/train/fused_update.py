"""What follows the backward pass, by two kernels over an arena of all weights (fastdino.kernels.adamw_ema)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fastdino import implementation
from fastdino.distributed.buckets import GradientBuckets
from fastdino.distributed.center import SharedMean
from fastdino.distributed.world import World
from fastdino.loss import DINOLoss
from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.optim import is_of_last_layer
from fastdino.train.precision import Precision
from fastdino.train.update import Statistics, StepValues, gradient_norms, is_at_fault, is_unsound

PROTOTYPES = "head.last_layer.weight_v"


class FusedUpdate:
    """Moves all weights of AdamW's student, its teacher and the center in two launches, and waits for nothing.

    In bfloat16 the networks compute with copies of the weights that the same launches write, so that autocast has
    nothing to cast, and the copies' gradients are taken as they come. The prototypes' copies are of length 1 already.
    """

    def __init__(
        self,
        student: MultiCropWrapper,
        teacher: MultiCropWrapper,
        dino_loss: DINOLoss,
        optimizer: Optimizer,
        precision: Precision,
        world: World,
    ) -> None:
        self.forward: nn.Module = student
        self.world, self.teacher = world, teacher
        self.dino_loss, self.optimizer, self.precision = dino_loss, optimizer, precision
        self.kernels = implementation.kernels("adamw_ema")
        # Prototypes of any other length are products that autograd has to see.
        self.unit_prototypes = all(_has_unit_rows(network) for network in (student, teacher))
        self.arena = implementation.kernels("arena").Arena(
            student, teacher, precision.name == "bf16", PROTOTYPES if self.unit_prototypes else None
        )
        self.arena.attach(optimizer)
        self.names = [name for name, _ in student.named_parameters()]
        self.copies = [
            Copies(network, self._views(shadow), self._unit_rows(shadow))
            for network, shadow in ((student, self.arena.student_shadow), (teacher, self.arena.teacher_shadow))
        ]
        self._center_inputs: list[Tensor] = []
        self._shared_mean = SharedMean(world) if world.size > 1 else None
        self._buckets: GradientBuckets | None = None
        self._gradient_dtype: torch.dtype | None = None
        self._values: tuple[StepValues, float] | None = None
        self._unsound = torch.zeros((), dtype=torch.bool, device=self.arena.device)
        self.norms = torch.zeros(len(self.names), device=self.arena.device)
        # A process by itself is at fault whenever anything is.
        self.at_fault = torch.full((), world.size == 1, device=self.arena.device)
        self._statistics = Statistics(student, teacher)

    @contextmanager
    def weights(self, last: bool) -> Iterator[None]:
        """The copies stand where the weights are otherwise."""
        if last and self._buckets is not None:
            self._buckets.expect()
        for copies in self.copies:
            copies.swap()
        try:
            yield
        finally:
            for copies in self.copies:
                copies.swap()

    def start(self, batches: int) -> None:
        """See `Update`. Those of several micro-batches add up in float32."""
        self.optimizer.zero_grad()
        self._statistics.keep()
        gradient_dtype = torch.bfloat16 if batches == 1 else torch.float32
        self.copies[0].zero_grad(gradient_dtype)
        self._center_inputs = []
        if self._shared_mean is not None:
            self._shared_mean.start(batches)
            self._share_gradients(gradient_dtype)

    def observe(self, bottleneck: Tensor, teacher_logits: Tensor) -> None:
        """See `Update`. The mean of the prototypes' products is their product with the mean."""
        if self._shared_mean is not None:
            self._shared_mean.add(bottleneck)
            return
        # Micro-batches are equally large, so the mean of their means is the mean over the whole batch.
        seen = bottleneck.float() if self.unit_prototypes else teacher_logits.float().mean(dim=0, keepdim=True)
        self._center_inputs.append(seen)

    def finish(self, values: StepValues, clip_grad: float, freeze_last_layer: int, loss: Tensor) -> Tensor:
        """See `Update`."""
        if self._buckets is not None:
            self._buckets.wait()
        if self._shared_mean is not None:
            self._center_inputs = [self._center_input(self._shared_mean.result())]
        frozen = values.epoch < freeze_last_layer
        gradients = [
            None if frozen and is_of_last_layer(name) else copy_gradient if copy_gradient is not None else p.grad
            for name, p, copy_gradient in zip(
                self.names, self.arena.student_parameters(), self.copies[0].gradients(), strict=True
            )
        ]
        norms = gradient_norms(gradients)
        self._unsound = is_unsound(loss, norms, self.precision, self.world)
        self.norms = torch.where(self._unsound, norms, self.norms)
        if self._buckets is not None:
            self.at_fault = torch.where(self._unsound, is_at_fault(loss, norms, self._buckets), self.at_fault)
        self._statistics.restore_if(self._unsound)
        self.arena.gather_gradients(gradients, of_shadows=self.copies[0].has_unit_rows)
        self._values = values, clip_grad
        self.precision.step_on_device(self.optimizer, self._launch)
        self.arena.release_gradients()
        if not self.unit_prototypes:
            mean = torch.cat(self._center_inputs).mean(dim=0, keepdim=True)
            self.dino_loss.move_center(torch.where(self._unsound, self.dino_loss.center, mean))
        return self._unsound

    def reload(self) -> None:
        """See `Update`."""
        self.arena.refresh_shadows()

    def _share_gradients(self, of_copies: torch.dtype) -> None:
        """Buckets for gradients of the copies in this type, and of all else in float32."""
        if of_copies == self._gradient_dtype:
            return
        if self._buckets is not None:
            self._buckets.remove()
        pairs = zip(self.copies[0].leaves(), self.arena.student_parameters(), strict=True)
        computing = [(p, torch.float32) if copy is None else (copy, of_copies) for copy, p in pairs]
        trained = [(leaf, dtype) for leaf, dtype in computing if leaf.requires_grad]
        self._buckets = GradientBuckets([leaf for leaf, _ in trained], [dtype for _, dtype in trained], self.world.size)
        self._gradient_dtype = of_copies

    @torch.no_grad()
    def _center_input(self, mean: Tensor) -> Tensor:
        """What `observe` keeps of a single process: the prototypes' mean input, or their mean output."""
        return mean if self.unit_prototypes else cast(DINOHead, self.teacher.head).last_layer(mean)

    def _launch(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        assert self._values is not None
        values, clip_grad = self._values
        group = self.optimizer.param_groups[0]
        scalars = self.kernels.StepScalars(
            values.lr,
            values.weight_decay,
            values.momentum,
            clip_grad,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            center_momentum=self.dino_loss.center_momentum,
        ).on(self.arena.device)
        for name, scalar in (("grad_scale", grad_scale), ("found_inf", found_inf)):
            if scalar is not None:
                scalars[self.kernels.StepScalars._fields.index(name)].copy_(scalar.squeeze())
        # What keeps student, teacher and center where they are; the center's would be NaN times 0.
        for name in ("found_inf", "momentum", "center_momentum"):
            scalars[self.kernels.StepScalars._fields.index(name)].masked_fill_(self._unsound, 1.0)
        center = (self.dino_loss.center, self._inputs()) if self.unit_prototypes else ()
        self.kernels.adamw_ema_(self.arena, scalars, *center)

    def _inputs(self) -> Tensor:
        # A launch less where there is nothing to put together.
        inputs = self._center_inputs[0] if len(self._center_inputs) == 1 else torch.cat(self._center_inputs)
        return inputs.masked_fill(self._unsound, 0.0)

    def _views(self, shadow: Tensor | None) -> list[Tensor]:
        return [] if shadow is None else self.arena.views(shadow)

    def _unit_rows(self, shadow: Tensor | None) -> Tensor | None:
        if shadow is None or not self.unit_prototypes:
            return None
        rows: Tensor = self.arena.padded_rows(shadow)
        # Only the loss's kernels know of padding.
        return rows if self.dino_loss.chosen(self.arena.device) == "triton" else rows[: self.dino_loss.center.numel()]


class UnitPrototypes(nn.Module):
    """Prototypes whose rows (K, D) have length 1 already."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """(R, D) -> logits (R, K)."""
        return F.linear(x, self.rows)


class Copies:
    """Weights of one network in autocast's type, for the layers in which autocast would cast them.

    Args:
        views: copies of all parameters, in their order; none leaves the network as it is.
        unit_rows: prototypes of length 1, with rows of zeros behind them; None leaves the last layer as it is.
    """

    def __init__(self, network: MultiCropWrapper, views: list[Tensor], unit_rows: Tensor | None) -> None:
        position = {parameter: i for i, parameter in enumerate(network.parameters())}
        self._leaves: list[Tensor | None] = [None] * len(position)
        self._places: list[tuple[dict[str, Any], str]] = []
        self._others: list[Any] = []
        self.has_unit_rows = unit_rows is not None
        for module in network.modules():
            # Exactly these: what is derived from them may do more with its weights than a product.
            if not views or type(module) not in (nn.Linear, nn.Conv2d):
                continue
            for key, parameter in module.named_parameters(recurse=False):
                index = position[parameter]
                self._leaves[index] = views[index].requires_grad_(parameter.requires_grad)
                self._places.append((cast(dict[str, Any], module._parameters), key))
                self._others.append(self._leaves[index])
        if unit_rows is not None:
            weight_v = cast(DINOHead, network.head).last_layer.weight_v
            self._leaves[position[weight_v]] = unit_rows.requires_grad_(weight_v.requires_grad)
            self._places.append((cast(dict[str, Any], network.head._modules), "last_layer"))
            self._others.append(UnitPrototypes(unit_rows))
        self._sizes = [parameter.shape for parameter in network.parameters()]

    def swap(self) -> None:
        """Put the copies where the weights are, or back."""
        for i, (members, name) in enumerate(self._places):
            members[name], self._others[i] = self._others[i], members[name]

    def zero_grad(self, dtype: torch.dtype) -> None:
        """Drop the gradients, and take the next ones in `dtype`."""
        for leaf in self._leaves:
            if leaf is not None and leaf.requires_grad:
                leaf.grad, leaf.grad_dtype = None, dtype

    def leaves(self) -> list[Tensor | None]:
        """One a parameter: the copy that takes its place, None where there is none."""
        return list(self._leaves)

    def gradients(self) -> list[Tensor | None]:
        """One a parameter: its copy's, None where there is no copy or no gradient."""
        return [
            None if leaf is None or leaf.grad is None else leaf.grad[: size[0]]
            for leaf, size in zip(self._leaves, self._sizes, strict=True)
        ]


def _has_unit_rows(network: MultiCropWrapper) -> bool:
    lengths = cast(DINOHead, network.head).last_layer.weight_g
    return not lengths.requires_grad and bool((lengths == 1).all())
