"""Student and teacher, moments, gradients and bfloat16 copies as flat buffers of one layout.

The parameters of both networks become views of such buffers, in place: modules, `state_dict`, checkpoints, DDP and
optimiser see the same `Parameter` objects as before. What they gain is that one launch can go over all of them, with
16-byte accesses everywhere and without a table of pointers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from fastdino.kernels.arena_layout import QUAD, Layout, blocks_of_rows, lay_out, padded

MOMENTS = ("exp_avg", "exp_avg_sq")


class Arena:
    """Two networks of equal parameters in flat buffers.

    Args:
        student, teacher: matched in the order of `parameters()`; all float32 (or all float64) on one device.
        shadows: keep a bfloat16 copy of both, for matrix products without casts.
        normalised_rows: name of a matrix whose rows v stand as v / |v| in the shadows, such as
            `head.last_layer.weight_v`.

    Attributes:
        layout: where each parameter lies in the buffers.
        student, teacher: the parameters, (layout.size,) with zeros between them.
        student_shadow, teacher_shadow: bfloat16, or None.
        exp_avg, exp_avg_sq, steps: AdamW's state once `attach` has been called; `steps` has one number a parameter.
        gradient_addresses: int64, one a parameter, 0 where it has no gradient in this step, and one more than the
            address, which is a multiple of 16, where that is bfloat16.
        decays: int32, one a parameter: 1 where weight decay applies.
        norms: the gradients' L2 norms before clipping, one a parameter, written by `adamw_ema_`.

    Raises:
        ValueError: the networks do not fit together, or parameters are not of one type and device.
    """

    exp_avg: Tensor | None = None
    exp_avg_sq: Tensor | None = None

    def __init__(
        self, student: nn.Module, teacher: nn.Module, shadows: bool = False, normalised_rows: str | None = None
    ) -> None:
        self._modules = {"student": student, "teacher": teacher}
        self._parameters = {name: list(module.parameters()) for name, module in self._modules.items()}
        parameters = self._parameters["student"]
        _check_networks(parameters, self._parameters["teacher"])
        names = [name for name, _ in student.named_parameters()]
        if normalised_rows is not None and normalised_rows not in names:
            raise ValueError(f"the student has no parameter {normalised_rows!r} whose rows could be normalised")
        self.normalised = None if normalised_rows is None else names.index(normalised_rows)
        if self.normalised is not None and parameters[self.normalised].dim() != 2:
            raise ValueError(f"{normalised_rows} is no matrix: its rows cannot be normalised")
        shape = blocks_of_rows() if self.normalised is None else blocks_of_rows(parameters[self.normalised].shape[1])
        first = parameters[0]
        self.dtype, self.device = first.dtype, first.device
        self.layout: Layout = lay_out([p.numel() for p in parameters], self.normalised, shape, self.device)
        self.student, self.teacher = (self._move_in(name) for name in self._modules)
        self.student_shadow, self.teacher_shadow = (
            self._zeros(torch.bfloat16) if shadows else None for _ in self._modules
        )
        self._pointers = {name: [p.data_ptr() for p in of] for name, of in self._parameters.items()}
        self._members = {name: _members(module) for name, module in self._modules.items()}
        self.refresh_shadows()
        self.steps, self.norms = (torch.zeros(len(parameters), device=self.device) for _ in range(2))
        self.decays = torch.zeros(len(parameters), dtype=torch.int32, device=self.device)
        self.gradient_addresses = torch.zeros(len(parameters), dtype=torch.int64, device=self.device)
        self.gradients_of_rows = False
        self._gradients: Tensor | None = None
        self._addresses = [0] * len(parameters)
        self._kept: list[Tensor | None] = [None] * len(parameters)

    def student_parameters(self) -> list[Tensor]:
        """In the order of all tables."""
        return list(self._parameters["student"])

    def padded_rows(self, flat: Tensor) -> Tensor:
        """The matrix with normalised rows in a buffer, (R, C) with R rounded up to eight; rows behind its own are 0.

        Products with it have rows of whole 16 bytes, which kernels can move at once, whatever the number of prototypes.
        """
        assert self.normalised is not None
        offset, columns = self.layout.offsets[self.normalised], self.layout.shape.width
        rows = padded(self._parameters["student"][self.normalised].shape[0])
        return flat[offset : offset + rows * columns].view(rows, columns)

    def views(self, flat: Tensor) -> list[Tensor]:
        """A buffer of this layout as tensors in the shapes of the parameters, which share its memory."""
        return [
            flat[offset : offset + p.numel()].view(p.shape)
            for offset, p in zip(self.layout.offsets, self._parameters["student"], strict=True)
        ]

    @torch.no_grad()
    def refresh_shadows(self) -> None:
        """Bring the shadows up to date, after anything but a kernel has changed the parameters (a checkpoint)."""
        for flat, shadow in ((self.student, self.student_shadow), (self.teacher, self.teacher_shadow)):
            if shadow is None:
                continue
            shadow.copy_(flat)
            if self.normalised is not None:
                self.views(shadow)[self.normalised].copy_(F.normalize(self.views(flat)[self.normalised], dim=1))

    def check(self) -> None:
        """Raises ValueError if a parameter was replaced or has left its place, as `.to(device)` or `.half()` do."""
        for name, parameters in self._parameters.items():
            moved = [p.data_ptr() for p in parameters] != self._pointers[name]
            if moved or any([*map(id, members.values())] != kept for members, kept in self._members[name]):
                raise ValueError(
                    f"the {name}'s parameters were moved or replaced (by .to(), .half() or an assignment) after its "
                    "arena was built: build a new one afterwards"
                )

    def attach(self, optimizer: Optimizer) -> None:
        """Keep the state of `optimizer` over the student here, in torch's own format.

        `optimizer.state[p]` gets `step`, `exp_avg` and `exp_avg_sq` as views, `load_state_dict` copies into them, and
        `state_dict` leaves out parameters that have made no step, as torch does. Weight decay applies to parameters
        whose group has one now.

        Raises:
            ValueError: it is no plain AdamW, or groups differ in their betas or eps.
        """
        groups = optimizer.param_groups
        if type(optimizer) is not AdamW or any(g["amsgrad"] or g["maximize"] for g in groups):
            raise ValueError("the arena keeps the state of torch.optim.AdamW without amsgrad and maximize only")
        if len({(tuple(g["betas"]), g["eps"]) for g in groups}) > 1:
            raise ValueError("all parameter groups must have the same betas and eps")
        index = {p: i for i, p in enumerate(self._parameters["student"])}
        if any(p not in index for g in groups for p in g["params"]):
            raise ValueError("the optimiser has parameters that are none of the student's")
        if self.exp_avg is None:
            self.exp_avg, self.exp_avg_sq = self._zeros(), self._zeros()
        decays = [0] * len(index)
        for group in groups:
            for p in group["params"]:
                decays[index[p]] = int(group["weight_decay"] != 0)
        self.decays.copy_(torch.tensor(decays, dtype=torch.int32))
        self._take_state(optimizer)
        optimizer.register_load_state_dict_post_hook(self._take_state)
        optimizer.register_state_dict_post_hook(_without_unmoved)

    def zero_grad(self) -> None:
        """Give trainable parameters gradients of zero that lie in the arena, for autograd to add to.

        For gradients whose addresses must stay, as in CUDA graphs. Otherwise `optimizer.zero_grad()` is better, which
        drops them: autograd then leaves its own behind without adding, and `gather_gradients` finds them.
        """
        if self._gradients is None:
            self._gradients = self._zeros()
        self._gradients.zero_()
        for p, view in zip(self._parameters["student"], self.views(self._gradients), strict=True):
            if p.requires_grad:
                p.grad = view

    @torch.no_grad()
    def gather_gradients(self, gradients: Sequence[Tensor | None] | None = None, of_shadows: bool = False) -> None:
        """Tell the kernels where this step's gradients are.

        Args:
            gradients: one per parameter, None where it has none and must not move; by default those of `parameters()`.
                Each float32 or bfloat16 (float64 for float64 parameters), in the parameters' shapes.
            of_shadows: they are those of the shadows: of v / |v| for the matrix with normalised rows, from which the
                kernels find those of v. Otherwise they are those of v itself, as autograd delivers them where the
                normalisation is in its graph.

        They are read where they are if kernels can do so, and copied otherwise. Addresses go to the device only when
        they have changed, without waiting. They are kept alive until the next call or `release_gradients`.

        Raises:
            ValueError: the gradients do not fit, or parameters were moved or replaced.
        """
        self.check()
        parameters = self._parameters["student"]
        if gradients is None:
            gradients = [p.grad for p in parameters]
        _check_gradients(gradients, parameters)
        self.gradients_of_rows = of_shadows and self.normalised is not None
        self._kept = [None if g is None else _readable(g, self._in_arena(g)) for g in gradients]
        addresses = [
            0 if g is None or not g.numel() else g.data_ptr() + (g.dtype == torch.bfloat16) for g in self._kept
        ]
        if addresses != self._addresses:
            self._addresses = addresses
            table = torch.tensor(addresses, pin_memory=self.device.type == "cuda")
            self.gradient_addresses.copy_(table, non_blocking=True)

    def gradients(self) -> list[Tensor]:
        """The gradients that the last `gather_gradients` found, as kernels read them."""
        return [g for g in self._kept if g is not None]

    def release_gradients(self) -> None:
        """Once the kernels that read them are launched: their memory may be taken for the next step's."""
        self._kept = [None] * len(self._kept)

    def _in_arena(self, gradient: Tensor) -> bool:
        """Gradients there are padded."""
        return (
            self._gradients is not None
            and gradient.untyped_storage().data_ptr() == self._gradients.untyped_storage().data_ptr()
        )

    def _zeros(self, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(self.layout.size, dtype=dtype or self.dtype, device=self.device)

    @torch.no_grad()
    def _move_in(self, name: str) -> Tensor:
        flat = self._zeros()
        for p, offset in zip(self._parameters[name], self.layout.offsets, strict=True):
            place = flat[offset : offset + p.numel()].view(p.shape)
            p.data = place.copy_(p.data)
        return flat

    @torch.no_grad()
    def _take_state(self, optimizer: Optimizer) -> None:
        """Copy the optimiser's state into the buffers, and put views of them in its place."""
        assert self.exp_avg is not None and self.exp_avg_sq is not None
        buffers = {"step": list(self.steps.unbind())}
        buffers |= {name: self.views(getattr(self, name)) for name in MOMENTS}
        position = {p: i for i, p in enumerate(self._parameters["student"])}
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            state = optimizer.state[p]
            for name, views in buffers.items():
                view, value = views[position[p]], state.get(name)
                if value is None:
                    view.zero_()
                elif value is not view:
                    view.copy_(torch.as_tensor(value))
                state[name] = view


def _without_unmoved(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    state = {index: values for index, values in state_dict["state"].items() if values["step"] != 0}
    return {**state_dict, "state": state}


def _members(module: nn.Module) -> list[tuple[dict[str, Any], list[int]]]:
    """The submodules and parameters of each submodule, and which objects they are: quicker to compare than to list."""
    members: list[dict[str, Any]] = [m for of in module.modules() for m in (of._modules, of._parameters)]
    return [(of, [*map(id, of.values())]) for of in members]


def _check_networks(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    if not student or [p.shape for p in student] != [p.shape for p in teacher]:
        raise ValueError("student and teacher must have parameters, equally many and of equal shapes in the same order")
    kinds = {(p.dtype, p.device) for p in (*student, *teacher)}
    if len(kinds) > 1 or next(iter(kinds))[0] not in (torch.float32, torch.float64):
        raise ValueError("all parameters of student and teacher must be float32 and on one device")


def _check_gradients(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> None:
    if len(gradients) != len(parameters):
        raise ValueError(
            f"there are {len(gradients)} gradients for {len(parameters)} parameters; None marks a missing one"
        )
    present = [(g, p) for g, p in zip(gradients, parameters, strict=True) if g is not None]
    if any(g.shape != p.shape or g.device != p.device for g, p in present):
        raise ValueError("gradients must have the shapes and the device of their parameters")
    wide = parameters[0].dtype == torch.float64
    allowed = (torch.float64,) if wide else (torch.float32, torch.bfloat16)
    if any(g.dtype not in allowed for g, _ in present):
        raise ValueError("gradients must be float32 or bfloat16")


def _readable(gradient: Tensor, padded: bool) -> Tensor:
    """`gradient`, or a copy that kernels can read in whole QUADs from a multiple of 16 bytes."""
    whole = padded or gradient.numel() % QUAD == 0
    if whole and gradient.is_contiguous() and gradient.data_ptr() % 16 == 0:
        return gradient
    copy = gradient.new_zeros(-(-gradient.numel() // QUAD) * QUAD)
    copy[: gradient.numel()].view(gradient.shape).copy_(gradient)
    return copy
