"""The epochs and steps of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from fastdino.config import TrainConfig
from fastdino.data.loader import MultiCropLoader
from fastdino.data.normalize import normalize
from fastdino.train.build import Schedules
from fastdino.train.guards import MicroBatchTooLarge, Tolerated
from fastdino.train.log import RunLog
from fastdino.train.position import Position, seed_of_attempt, seed_step
from fastdino.train.progress import TrainingProgress
from fastdino.train.step import StepMetrics, Trainee, train_step
from fastdino.train.trouble import MOST_IN_A_ROW, Diverged, ranks_at_fault, record, what_happened
from fastdino.train.update import StepValues

# Reading a figure from a GPU waits for it; this often is enough for a person.
STEPS_BETWEEN_READINGS = 10


class Loop:
    """Steps on from `position`: batches from `loader`, moved to the device, into `trainee`, figures into `log`.

    `after_step` is called between two steps of an epoch.
    """

    def __init__(
        self,
        config: TrainConfig,
        trainee: Trainee,
        schedules: Schedules,
        loader: MultiCropLoader,
        log: RunLog,
        position: Position,
        tolerated: Tolerated,
        console: Console,
        after_step: Callable[[], None],
    ) -> None:
        self.config, self.trainee, self.schedules = config, trainee, schedules
        self.loader, self.log, self.position = loader, log, position
        self.tolerated, self.console, self.after_step = tolerated, console, after_step
        self.device, self.world = trainee.precision.device, trainee.world
        self.pictures_per_step = config.batch_size * self.world.size
        self.seed = seed_of_attempt(config.seed, position.attempt)
        self.halved = False
        self._looked_at = len(position.readings)

    @property
    def step(self) -> int:
        """Optimiser steps done since the first epoch."""
        return self.position.epoch * self.schedules.steps_per_epoch + len(self.position.readings)

    def epoch(self, progress: TrainingProgress) -> dict[str, Any]:
        """Train what is left of the current epoch; returns its line for log.txt.

        Raises Diverged after several unsound steps in a row, MicroBatchTooLarge if memory is short.
        """
        position = self.position
        started = time.monotonic() - position.seconds
        waited = self.loader.wait_seconds - position.waited
        for batches in self._steps():
            step = self.step
            values = self.schedules.at(step)
            self.world.begins(step)
            position.readings.append(self._train(step, batches, values))
            position.samples += self.pictures_per_step
            position.seconds, position.waited = time.monotonic() - started, self.loader.wait_seconds - waited
            progress.advance(position.epoch)
            if self.reads_after(step):
                self._show(progress, values)
            if len(position.readings) < self.schedules.steps_per_epoch:
                self.after_step()
        self.look()
        # After the reading above, which waits for a GPU to finish the epoch.
        position.seconds = time.monotonic() - started
        return self._line()

    def begin_epoch(self) -> None:
        """After `position` has gone on to the next one."""
        self._looked_at = 0

    def reads_after(self, step: int) -> bool:
        """Whether figures are read, and requests of all processes heard, after `step`."""
        return self.device.type == "cpu" or step % STEPS_BETWEEN_READINGS == 0

    def look(self) -> Tensor:
        """Read the figures that nobody has seen yet, (steps, figures), and write down unsound steps.

        Raises Diverged if there are too many of these in a row.
        """
        position, first = self.position, self._looked_at
        figures = torch.empty(0, len(StepMetrics._fields))
        if position.readings[first:]:
            figures = self.world.mean(torch.stack([torch.stack(r) for r in position.readings[first:]])).cpu()
        for offset, (loss, *_, skipped) in enumerate(figures.tolist(), first):
            position.unsound_in_a_row = position.unsound_in_a_row + 1 if skipped else 0
            if skipped:
                self._report(offset, loss)
        # Averages over all processes now, for the epoch's line and for checkpoints.
        position.readings[first:] = [StepMetrics(*row) for row in figures]
        self._looked_at = len(position.readings)
        return figures

    def _report(self, offset: int, loss: float) -> None:
        position, step = self.position, self.position.epoch * self.schedules.steps_per_epoch + offset
        ranks = ranks_at_fault(self.trainee)
        happened = what_happened(loss, step, ranks if self.world.size > 1 else [])
        if self.world.is_main:
            first_sample = offset * self.pictures_per_step
            with self.tolerated.writing("trouble/"):
                folder = Path(self.config.output_dir)
                record(folder, self.config, self.trainee, self.loader, position, step, first_sample, loss, ranks)
        if position.unsound_in_a_row >= MOST_IN_A_ROW:
            raise Diverged(happened)
        self.console.print(f"[yellow]note:[/] {happened}: the step was skipped", highlight=False, soft_wrap=True)

    def _show(self, progress: TrainingProgress, values: StepValues) -> None:
        position = self.position
        step = self.step - 1
        loss = self.look()[-1, 0].item()
        speed = len(position.readings) * self.pictures_per_step / position.seconds
        progress.show(loss, speed, position.waited / position.seconds)
        self.log.step(step, {"loss": loss, "lr": values.lr})

    def _line(self) -> dict[str, Any]:
        position = self.position
        steps = len(position.readings)
        figures = position.figures()
        skipped = figures[:, -1] > 0
        loss, entropy, spread, _ = figures[~skipped].mean(dim=0).tolist()
        epoch_steps = slice(self.step - steps, self.step)
        return {
            "train_loss": loss,
            "train_lr": float(self.schedules.lr[epoch_steps].mean()),
            "train_wd": float(self.schedules.weight_decay[epoch_steps].mean()),
            "epoch": position.epoch,
            "train_teacher_entropy": entropy,
            "train_kl": loss - entropy,
            "train_feature_std": spread,
            "skipped_steps": int(skipped.sum()),
            "images_per_second": steps * self.pictures_per_step / position.seconds,
            "data_wait": position.waited / position.seconds,
            "pictures": len(self.loader.source),
        }

    def _train(self, step: int, batches: list[list[Tensor]], values: StepValues) -> StepMetrics:
        """One step, with the micro-batches halved for good if memory is short for them once."""
        settings = values, self.config.clip_grad, self.config.freeze_last_layer
        try:
            seed_step(self.seed, step, self.world.rank)
            return train_step(self.trainee, halved(batches) if self.halved else batches, *settings)
        except MicroBatchTooLarge:
            # Others would wait for gradients that never set out.
            if self.halved or self.world.size > 1 or len(batches[0][0]) % 2:
                raise
        # Outside of the handler, whose exception holds on to what the step had in memory.
        self.halved = True
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.console.print(
            f"[yellow]note:[/] memory was short for {len(batches[0][0])} pictures at a time: going on with half as "
            f"many and twice the --accumulation_steps, the same pictures a step",
            highlight=False,
            soft_wrap=True,
        )
        seed_step(self.seed, step, self.world.rank)
        return train_step(self.trainee, halved(batches), *settings)

    def _steps(self) -> Iterator[list[list[Tensor]]]:
        """The micro-batches of each optimiser step that is left, normalised on the training device."""
        self.loader.load_state_dict({"epoch": self.position.epoch, "samples": self.position.samples})
        batches = iter(self.loader)
        for _ in range(len(self.position.readings), self.schedules.steps_per_epoch):
            yield [
                [self._normalized(crop) for crop in crops]
                for crops, _ in islice(batches, self.config.accumulation_steps)
            ]

    def _normalized(self, crop: Tensor) -> Tensor:
        if self.device.type != "cpu":
            # Only from pinned memory does the copy run beside the GPU's work.
            crop = crop.pin_memory().to(self.device, non_blocking=True)
        return normalize(crop, self.trainee.precision.input_dtype, self.config.implementation)


def halved(batches: Sequence[list[Tensor]]) -> list[list[Tensor]]:
    """Each micro-batch, a list of crops (B, 3, size, size), as two of B / 2."""
    return [list(half) for crops in batches for half in zip(*(crop.chunk(2) for crop in crops), strict=True)]
