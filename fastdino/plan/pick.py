"""Which settings of a run fit into a device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from fastdino.config import TrainConfig
from fastdino.errors import UserError
from fastdino.models.backbones import VISION_TRANSFORMERS, canonical_arch
from fastdino.plan.predict import StepMemory, predict_step
from fastdino.plan.process import allocator_memory, available_memory, process_memory
from fastdino.train.precision import choose_precision

CHECKPOINTING = ("none", "attention", "block")


@dataclass(frozen=True)
class Plan:
    """What a run takes, and what it could be changed to.

    Attributes:
        step: of the run as it was given.
        process: bytes of the interpreter and the libraries, where they share the tensors' memory; 0 with a GPU.
        allocator: bytes that are held beside what is alive; 0 with a GPU.
        checkpoint: bytes of the copy that a checkpoint is written from, in the RAM; 0 with a GPU.
        memory: bytes that the device has.
        chosen: settings that fit with the same pictures per optimiser step, the fastest that were found: the given
            ones if they fit, None if none do.
        chosen_peak: bytes that those take; if none fit, the least that was found.
    """

    step: StepMemory
    process: int
    allocator: int
    checkpoint: int
    memory: int
    chosen: TrainConfig | None
    chosen_peak: int

    @property
    def peak(self) -> int:
        """Bytes of the run as it was given, all included."""
        return self.step.peak + self.process + self.allocator + self.checkpoint

    @property
    def fits(self) -> bool:
        """Whether it can run as it was given."""
        return self.peak <= self.memory


def plan(config: TrainConfig, memory: int | None = None) -> Plan:
    """Predict a run's memory and pick settings that fit.

    Args:
        memory: bytes of the device; None for all of the GPU's, or what this machine has available.

    Raises UserError for an architecture that cannot be built.
    """
    process, gpu = process_memory(), torch.cuda.is_available()
    precision = choose_precision(config.precision, config.use_fp16, torch.device("cuda" if gpu else "cpu"))
    if gpu:
        # It holds tensors alone.
        process = 0
    if memory is None:
        memory = torch.cuda.mem_get_info()[0] if gpu else available_memory() + process

    def predicted(changed: TrainConfig) -> Plan:
        step = predict_step(replace(changed, precision=precision))
        allocator, checkpoint = (0, 0) if gpu else (allocator_memory(step.peak - step.lasting), step.lasting)
        return Plan(step, process, allocator, checkpoint, memory, None, 0)

    found = predicted(config)
    chosen, chosen_peak = pick(config, found.peak, memory, lambda changed: predicted(changed).peak)
    return replace(found, chosen=chosen, chosen_peak=chosen_peak)


def pick(
    config: TrainConfig, peak: int, memory: int, predict: Callable[[TrainConfig], int]
) -> tuple[TrainConfig | None, int]:
    """The fastest settings that fit into `memory` bytes and their peak, or None and the least peak that was found.

    Args:
        peak: of `config`.
        predict: finds that of any other.

    In this order: as given, attention again, blocks again, smaller micro-batches.
    """
    if peak <= memory:
        return config, peak
    least = peak
    for smaller in _micro_batches(config):
        # What takes least goes first: if that does not fit, nothing of this size does.
        *others, thriftiest = (replace(smaller, checkpointing=kind) for kind in _checkpointing(config))
        try:
            peak = predict(thriftiest)
        except UserError:
            # BatchNorm needs two pictures.
            break
        least = min(least, peak)
        if peak > memory:
            continue
        for faster in others:
            its_peak = predict(faster)
            if its_peak <= memory:
                return faster, its_peak
        return thriftiest, peak
    return None, least


def _checkpointing(config: TrainConfig) -> tuple[str, ...]:
    """From the fastest to the one that takes least."""
    return CHECKPOINTING if canonical_arch(config.arch) in VISION_TRANSFORMERS else ("none",)


def _micro_batches(config: TrainConfig) -> Iterator[TrainConfig]:
    """The same pictures per optimiser step in ever more, ever smaller micro-batches."""
    pictures, size = config.batch_size, config.batch_size_per_gpu
    yield config
    for smaller in range(size // 2, 0, -1):
        # By half at least, so that there are few to try.
        if pictures % smaller == 0 and smaller <= size // 2:
            size = smaller
            yield replace(config, batch_size_per_gpu=smaller, accumulation_steps=pictures // smaller)
