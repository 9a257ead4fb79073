"""The epochs and steps of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdino.config import TrainConfig
from fastdino.data.loader import MultiCropLoader
from fastdino.data.normalize import normalize
from fastdino.distributed.parts import local
from fastdino.errors import TrainingFailed
from fastdino.train.build import Schedules
from fastdino.train.log import RunLog
from fastdino.train.progress import TrainingProgress
from fastdino.train.step import StepMetrics, Trainee, train_step

# Reading a figure from a GPU waits for it; this often is enough for a person.
STEPS_BETWEEN_READINGS = 10
AFTER_DIVERGENCE = "the last checkpoint is from before that; lower --lr, set --clip_grad 0.3, or try --precision fp32"


class Loop:
    """Steps through epochs: batches from `loader`, moved to the device, into `trainee`, figures into `log`."""

    def __init__(
        self, config: TrainConfig, trainee: Trainee, schedules: Schedules, loader: MultiCropLoader, log: RunLog
    ) -> None:
        self.config, self.trainee, self.schedules = config, trainee, schedules
        self.loader, self.log = loader, log
        self.device, self.world = trainee.precision.device, trainee.world
        self.pictures_per_step = config.batch_size * self.world.size

    def epoch(self, epoch: int, progress: TrainingProgress) -> dict[str, Any]:
        """Train one epoch; returns its line for log.txt.

        Raises TrainingFailed when the loss or a weight stops being a number.
        """
        self.loader.set_epoch(epoch)
        started, waited = time.monotonic(), self.loader.wait_seconds
        first_step = epoch * self.schedules.steps_per_epoch
        readings: list[StepMetrics] = []
        for offset, batches in enumerate(self._steps()):
            step = first_step + offset
            seed_step(self.config.seed, step, self.world.rank)
            values = self.schedules.at(step)
            readings.append(
                train_step(self.trainee, batches, values, self.config.clip_grad, self.config.freeze_last_layer)
            )
            progress.advance(epoch)
            if self.device.type == "cpu" or step % STEPS_BETWEEN_READINGS == 0:
                loss = finite(self.world.mean(readings[-1].loss), step)
                elapsed = time.monotonic() - started
                wait_share = (self.loader.wait_seconds - waited) / elapsed
                progress.show(loss, (offset + 1) * self.pictures_per_step / elapsed, wait_share)
                self.log.step(step, {"loss": loss, "lr": values.lr})
        figures = self.world.mean(torch.stack([torch.stack(reading) for reading in readings])).cpu()
        # After the reading above, which waits for a GPU to finish the epoch.
        elapsed = time.monotonic() - started
        for offset, reading in enumerate(figures):
            finite(reading[0], first_step + offset)
        # The last step's update shows in no loss of this epoch, and would be saved.
        require_finite_weights(self.trainee.student)
        loss, entropy, spread = figures.mean(dim=0).tolist()
        epoch_steps = slice(first_step, first_step + len(readings))
        return {
            "train_loss": loss,
            "train_lr": float(self.schedules.lr[epoch_steps].mean()),
            "train_wd": float(self.schedules.weight_decay[epoch_steps].mean()),
            "epoch": epoch,
            "train_teacher_entropy": entropy,
            "train_kl": loss - entropy,
            "train_feature_std": spread,
            "images_per_second": len(readings) * self.pictures_per_step / elapsed,
            "data_wait": (self.loader.wait_seconds - waited) / elapsed,
            "pictures": len(self.loader.source),
        }

    def _steps(self) -> Iterator[list[list[Tensor]]]:
        """The micro-batches of each optimiser step, normalised on the training device."""
        batches = iter(self.loader)
        for _ in range(self.schedules.steps_per_epoch):
            yield [
                [self._normalized(crop) for crop in crops]
                for crops, _ in islice(batches, self.config.accumulation_steps)
            ]

    def _normalized(self, crop: Tensor) -> Tensor:
        if self.device.type != "cpu":
            # Only from pinned memory does the copy run beside the GPU's work.
            crop = crop.pin_memory().to(self.device, non_blocking=True)
        return normalize(crop, self.trainee.precision.input_dtype, self.config.implementation)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make a step's own randomness (stochastic depth) a function of seed, step and rank, whatever came before."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def finite(loss: Tensor, step: int) -> float:
    """The loss as a number. Raises TrainingFailed if it is not one."""
    value = loss.item()
    if math.isfinite(value):
        return value
    raise TrainingFailed(f"the loss became {value} at step {step}: {AFTER_DIVERGENCE}")


@torch.no_grad()
def require_finite_weights(network: nn.Module) -> None:
    """Raises TrainingFailed if any weight is NaN or infinite."""
    if not torch.stack([local(parameter).isfinite().all() for parameter in network.parameters()]).all():
        raise TrainingFailed(f"the weights stopped being numbers: {AFTER_DIVERGENCE}")
