"""A whole training step on a GPU, ours and the original's, run on the device `meta` and counted.

Ours is fastdino.train.step.train_step itself, as it runs with the kernels; what Triton's kernels and xformers do stands
in from kernel_traffic and meta_attention. The original's is written after its code from the modules of ours, since its
operations are what is counted: see `original_step`.

Needs TRITON_INTERPRET=1 before it is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from xformers import ops as xformers_ops

from benchmarks.gpu_proofs import kernel_traffic, meta_attention, meta_layer_norm, pytorch_traffic
from benchmarks.gpu_proofs.concrete_case import Case
from benchmarks.gpu_proofs.dispatch_counter import Count, total
from benchmarks.gpu_proofs.meta_autocast import MetaAutocast
from benchmarks.gpu_proofs.step_counter import Operation, StepCounter, addresses
from benchmarks.original_step import OriginalNetwork
from benchmarks.profile_step import name_ranges
from fastdino import TrainConfig, attention
from fastdino.optim import cancel_gradients_last_layer, get_params_groups
from fastdino.train.build import build_trainee
from fastdino.train.precision import Precision
from fastdino.train.step import Trainee, train_step
from fastdino.train.update import StepValues

META = torch.device("meta")
VALUES = StepValues(epoch=1, lr=5e-4, weight_decay=0.04, momentum=0.996)
CLIP, DROP_PATH = 3.0, 0.1
PARTS = ("crops", "teacher", "student", "loss", "backward", "update")
# The loss inside is told apart.
RANGES = {"loss and backward": "backward"}


class Kernels(NamedTuple):
    """What ours move in a step."""

    normalisation: Count
    loss: Count
    tail: Count


def kernels(case: Case) -> Kernels:
    """Counted by the interpreter."""
    tail = total([kernel_traffic.tail(case), kernel_traffic.center(case)])
    return Kernels(kernel_traffic.normalisation(case), kernel_traffic.loss(case).counted, tail)


def our_step(case: Case, kernels: Kernels) -> list[Operation]:
    """The step that follows the first, which makes what others find."""
    counter = StepCounter()
    with addresses(), _gpu_stand_ins(kernels, counter), counter:
        trainee = _trainee(case, "triton")
        name_ranges(trainee, lambda name: counter.part(RANGES.get(name, name)))
        for _ in range(2):
            counter.operations.clear()
            with counter.part("crops"):
                arrived = [torch.empty(shape, dtype=torch.uint8).to(META) for shape in case.pixel_shapes]
                counter.note("normalize", kernels.normalisation)
                crops = [torch.empty_like(crop, dtype=torch.bfloat16) for crop in arrived]
            # What no part claims are the teacher's head and what is told about its features.
            with counter.part("teacher"):
                train_step(trainee, [crops], VALUES, CLIP, 1)
    return counter.operations


@contextmanager
def _gpu_stand_ins(kernels: Kernels, counter: StepCounter) -> Iterator[None]:
    """For what needs a GPU: the choice of attention, autocast, xformers, and the kernels, which are counted already."""

    def dino_loss_and_gradient_(student: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        with counter.part("loss"):
            counter.note("dino_loss_and_gradient_", kernels.loss)
        return student.new_empty((), dtype=torch.float32), student.new_empty((), dtype=torch.float32)

    patches = (
        mock.patch.object(attention, "choose", return_value=("xformers", "")),
        mock.patch.object(Precision, "autocast", lambda _: MetaAutocast()),
        mock.patch.object(xformers_ops, "memory_efficient_attention", meta_attention.memory_efficient_attention),
        mock.patch("fastdino.models.block.dtype_of_products", return_value=torch.bfloat16),
        mock.patch("fastdino.kernels.layer_norm.forward", meta_layer_norm.forward),
        mock.patch("fastdino.kernels.layer_norm.gradients", meta_layer_norm.gradients),
        mock.patch("fastdino.kernels.dino_loss.dino_loss_and_gradient_", dino_loss_and_gradient_),
        mock.patch("fastdino.kernels.adamw_ema.adamw_ema_", lambda *_: counter.note("adamw_ema_", kernels.tail)),
    )
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def original_step(case: Case) -> list[Operation]:
    """As main_dino.py goes about it with torch's defaults: AdamW in its multi-tensor form, gradients set to None.

    In bfloat16, so that nothing is scaled: float16, which the original takes, has the same bytes and one more reading
    and writing of all gradients. Without DistributedDataParallel, which would copy all gradients twice.
    """
    counter = StepCounter()
    trainee = _trainee(case, "reference")
    with META:
        student, teacher = (
            OriginalNetwork(each.backbone, each.head)  # type: ignore[arg-type]
            for each in (trainee.student, trainee.teacher)
        )
    teacher.requires_grad_(False)
    optimizer = torch.optim.AdamW(get_params_groups(student), foreach=True)
    center = torch.empty(1, case.prototypes, device=META)
    with counter:
        for _ in range(2):
            counter.operations.clear()
            _original_batch(case, counter, student, teacher, optimizer, center)
    return counter.operations


def _original_batch(
    case: Case,
    counter: StepCounter,
    student: OriginalNetwork,
    teacher: OriginalNetwork,
    optimizer: torch.optim.Optimizer,
    center: Tensor,
) -> None:
    with counter.part("crops"):
        crops = [torch.empty(shape).to(META) for shape in case.pixel_shapes]
    with MetaAutocast():
        with counter.part("teacher"):
            of_teacher = teacher(crops[:2])
        with counter.part("student"):
            of_student = student(crops)
    with counter.part("loss"):
        loss = pytorch_traffic.original_loss(case.crops, of_student, of_teacher, center)
        (gradient,) = torch.autograd.grad(loss, of_student)
    with counter.part("backward"):
        optimizer.zero_grad()
        of_student.backward(gradient)
    with counter.part("update"):
        pytorch_traffic.original_clip(p.grad for p in student.parameters() if p.grad is not None)
        cancel_gradients_last_layer(VALUES.epoch, student, 1)
        optimizer.step()
        pytorch_traffic.original_average((p.data for p in teacher.parameters()), (p.data for p in student.parameters()))
        loss.item()


def _trainee(case: Case, implementation: str) -> Trainee:
    large, small = case.crop_sizes
    config = TrainConfig(
        arch="vit_small",
        out_dim=case.prototypes,
        local_crops_number=case.local_crops,
        global_size=large,
        local_size=small,
        drop_path_rate=DROP_PATH,
        precision="bf16",
        implementation=implementation,
    )
    with META:
        return build_trainee(config, META)
