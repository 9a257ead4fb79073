"""The memory of a step, found by running the step on tensors that have none."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastdino.config import TrainConfig
from fastdino.plan.meter import MemoryMeter
from fastdino.train.build import build_trainee
from fastdino.train.precision import choose_precision
from fastdino.train.step import StepValues, Trainee, train_step

STUDENT, TEACHER, GRADIENTS, MOMENTS = "student", "teacher", "gradients", "moments"
CROPS, ACTIVATIONS, LOGITS, TEMPORARIES = "crops", "activations", "logits", "temporaries"
CATEGORIES = (STUDENT, TEACHER, GRADIENTS, MOMENTS, CROPS, ACTIVATIONS, LOGITS, TEMPORARIES)

VALUES = StepValues(epoch=0, lr=5e-4, weight_decay=0.04, momentum=0.996)


@dataclass(frozen=True)
class StepMemory:
    """The most that tensors take at once in an optimiser step.

    Attributes:
        peak: bytes.
        categories: those by CATEGORIES.
        backbone, head: the student's parameters.
    """

    peak: int
    categories: dict[str, int]
    backbone: int
    head: int

    @property
    def lasting(self) -> int:
        """Bytes of the peak that live from step to step."""
        return sum(self.categories[name] for name in (STUDENT, TEACHER, MOMENTS))


def predict_step(config: TrainConfig) -> StepMemory:
    """What `measure_step` would find, in seconds and without the memory.

    Stochastic depth is taken to drop nothing.
    """
    # Here, because it takes memory itself, which the process's own is measured without.
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Some CPUs are asked for their speed, which without memory is none.
    config = replace(config, precision=choose_precision(config.precision, config.use_fp16, torch.device("cpu")))
    with FakeTensorMode(), _Answers(config.accumulation_steps > 1):
        return measure_step(config)


def measure_step(config: TrainConfig) -> StepMemory:
    """Run a step on a CPU and follow its tensors: uncompiled, in one process."""
    config = replace(config, precision=_precision(config), compile=False, fsdp=False)
    observer = _Observer()
    with observer.meter:
        observer.phase = STUDENT
        trainee = build_trainee(config, torch.device("cpu"))
        observer.watch(trainee, config.out_dim)
        _make_moments(trainee)
        observer.mark_moments(trainee)
        observer.phase = CROPS
        batches = blank_batches(config)
        observer.phase = TEMPORARIES
        observer.meter.reset_peak()
        train_step(trainee, batches, VALUES, config.clip_grad, freeze_last_layer=0)
    at_peak = observer.meter.at_peak()
    backbone, head = (
        sum(p.numel() for p in part.parameters()) for part in (trainee.student.backbone, trainee.student.head)
    )
    return StepMemory(observer.meter.peak, {name: at_peak[name] for name in CATEGORIES}, backbone, head)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def blank_batches(config: TrainConfig) -> list[list[Tensor]]:
    """Black crops for an optimiser step, micro-batch by micro-batch."""
    sizes = [config.global_size] * 2 + [config.local_size] * config.local_crops_number
    return [
        [torch.zeros(config.batch_size_per_gpu, 3, size, size) for size in sizes]
        for _ in range(config.accumulation_steps)
    ]


def _precision(config: TrainConfig) -> str:
    """Without the loss scale of float16, which has to look at gradients; bfloat16 takes the same memory."""
    return "bf16" if config.precision == "fp16" else config.precision


def _make_moments(trainee: Trainee) -> None:
    """As a first step does."""
    for parameter in trainee.student.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    trainee.optimizer.step()
    trainee.optimizer.zero_grad()


class _Observer:
    """Knows in which part of a step a tensor was made."""

    def __init__(self) -> None:
        self.phase = STUDENT
        self.meter = MemoryMeter(self._category)
        self._prototypes = 0

    def watch(self, trainee: Trainee, prototypes: int) -> None:
        """Tell the student's forward pass, the logits, and the gradients from the rest."""
        self._prototypes = prototypes
        for tensor in (*trainee.teacher.parameters(), *trainee.teacher.buffers()):
            self.meter.recategorise(tensor, TEACHER)
        trainee.student.register_forward_pre_hook(lambda *_: self._enter(ACTIVATIONS))
        trainee.student.register_forward_hook(lambda *_: self._enter(TEMPORARIES))
        for parameter in trainee.student.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._mark_gradient)

    def mark_moments(self, trainee: Trainee) -> None:
        """What the optimiser keeps."""
        for state in trainee.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    self.meter.recategorise(value, MOMENTS)

    def _enter(self, phase: str) -> None:
        self.phase = phase

    def _mark_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.meter.recategorise(parameter.grad, GRADIENTS)

    def _category(self, tensor: Tensor) -> str:
        return LOGITS if tensor.ndim == 2 and tensor.shape[1] == self._prototypes else self.phase


class _Answers(TorchDispatchMode):
    """Answers what only values could: what a step asks of them decides on memory in few places.

    Args:
        scaled: whether the loss is multiplied with anything but 1, as that of one micro-batch of several is.
    """

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self._scaled = scaled
        self._unequal: Callable[[], Tensor | None] = lambda: None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            # Any other condition is that of drawing a weight once more, because it is too large.
            return self._scaled and args[0] is self._unequal() if args[0].dtype == torch.bool else 1
        if func is torch.ops.aten.nonzero.default:
            # Of the sequences that stochastic depth keeps: all.
            return torch.arange(args[0].numel(), device=args[0].device).unsqueeze(1)
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.ne.Scalar:
            self._unequal = weakref.ref(result)
        return result
