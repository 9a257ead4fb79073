"""How far a run has come: what a checkpoint holds besides networks, center, optimiser and loss scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdino.train.step import StepMetrics


@dataclasses.dataclass
class Position:
    """Where a run stands between two optimiser steps.

    Attributes:
        epoch: the one in progress, counted from 0; the original's `epoch`, with which a run goes on.
        samples: pictures that this epoch's steps have taken, of all processes together.
        attempt: data orders given up so far because the run diverged in them.
        unsound_in_a_row: steps in a row, up to here, that were skipped because of numbers that are not finite.
        readings: what each step of this epoch reported.
        seconds, waited: time that this epoch's steps took, and the part of it spent waiting for pictures.
    """

    epoch: int = 0
    samples: int = 0
    attempt: int = 0
    unsound_in_a_row: int = 0
    readings: list[StepMetrics] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, and the readings as a tensor (steps, figures) float32."""
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return state | {"readings": self.figures()}

    @classmethod
    def from_state_dict(cls, epoch: int, state: Mapping[str, Any]) -> Position:
        """What `state_dict` gave; from the original's checkpoints, which have none, the start of `epoch`."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in state.items() if name in known}
        readings = [StepMetrics(*row) for row in values.pop("readings", torch.empty(0, 0))]
        return cls(**(values | {"epoch": epoch}), readings=readings)

    def figures(self) -> Tensor:
        """The readings on the host, (steps, figures) float32; waits for a GPU to reach them."""
        if not self.readings:
            return torch.empty(0, len(StepMetrics._fields))
        return torch.stack([torch.stack(reading) for reading in self.readings]).float().cpu()

    def next_epoch(self) -> None:
        """The start of the one after this."""
        self.epoch, self.samples, self.readings = self.epoch + 1, 0, []
        self.seconds = self.waited = 0.0


def seed_of_attempt(seed: int, attempt: int) -> int:
    """The seed of order, crops and stochastic depth: `seed` itself until a run had to give up an order."""
    return seed if attempt == 0 else _mixed(seed, attempt) >> 1


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make a step's own randomness (stochastic depth) a function of seed, step and rank, whatever came before."""
    torch.manual_seed(_mixed(seed, step, rank))


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
