"""When a run saves itself, and how it goes back."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch
from rich.console import Console

from fastdino.config import TrainConfig
from fastdino.distributed.agreement import require_equal_weights
from fastdino.train.build import initial_network
from fastdino.train.checkpoint import checkpoint_content, load_newest, restore
from fastdino.train.guards import Tolerated
from fastdino.train.position import Position
from fastdino.train.saving import NAME, CheckpointWriter
from fastdino.train.step import Trainee
from fastdino.train.trouble import require_finite_weights


class Checkpoints:
    """Those of one run. All processes ask for each of them, the first one writes."""

    def __init__(self, config: TrainConfig, trainee: Trainee, tolerated: Tolerated) -> None:
        self.config, self.trainee, self.tolerated = config, trainee, tolerated
        self.folder = Path(config.output_dir)
        self.writer = CheckpointWriter(self.folder, config.keep_checkpoints)
        trainee.before_update = self.writer.wait_for_copy
        self._saved_at = time.monotonic()

    def due(self, steps: int) -> bool:
        """Whether it is time for one after so many steps of the run. Time waits while one is being written."""
        by_steps = self.config.save_steps > 0 and steps % self.config.save_steps == 0
        elapsed = time.monotonic() - self._saved_at
        by_time = 0 < self.config.save_minutes * 60 <= elapsed and not self.writer.busy
        return by_steps or by_time

    def save(self, position: Position, *, also: Path | None = None) -> None:
        """Start to write `checkpoint.pth`, and `also` as a name for good; waits for the one before.

        Raises Diverged for weights that are no numbers, before anything is written. A disk that does not take the file
        is left to `tolerated`.
        """
        require_finite_weights(self.trainee.student, self.trainee.world)
        require_equal_weights(self.trainee.world, self.trainee.student.parameters())
        self.settle()
        if self.trainee.world.is_main or self.config.fsdp:
            content = checkpoint_content(self.trainee, position, dataclasses.asdict(self.config))
            if self.trainee.world.is_main:
                self.writer.start(content, also)
        self._saved_at = time.monotonic()

    def settle(self) -> None:
        """Wait for the file that is being written."""
        if self.writer.pending:
            with self.tolerated.writing(NAME):
                self.writer.finish()


def go_back(config: TrainConfig, trainee: Trainee, console: Console) -> Position:
    """Restore the newest checkpoint, or the beginning where there is none; returns where that is."""
    folder = Path(config.output_dir)
    position = load_newest(folder, trainee, console)
    if position is not None:
        return position
    network = initial_network(config)
    groups = trainee.optimizer.state_dict()["param_groups"]
    content = {
        "student": network.state_dict(),
        "teacher": network.state_dict(),
        "dino_loss": {"center": torch.zeros_like(trainee.dino_loss.center)},
        "optimizer": {"state": {}, "param_groups": groups},
        "epoch": 0,
    }
    return restore(content, trainee, folder / NAME)
