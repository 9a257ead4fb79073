"""Whole training programs, each run as it is in a process of its own, with the end of every optimiser step noted."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fastdino.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
STEPS, STDOUT, RUN = "steps.txt", "stdout.txt", "run"


class Losses(NamedTuple):
    """As a program's own log has them."""

    first: float
    mean: float
    """Over the steps of the last epoch."""


class Measurement(NamedTuple):
    """One run of one program."""

    images_per_second: float
    losses: Losses


@dataclass(frozen=True)
class Peer:
    """A program: the module of this package that starts it, and the interpreter that has what it needs."""

    module: str
    interpreter: str
    arguments: tuple[str, ...] = ()
    """Before the flags."""

    def measure(self, flags: list[str], folder: Path, batch_size: int, steps_per_epoch: int) -> Measurement:
        """Train with the original's flags, `folder` taking what the program writes.

        Raises UserError with the end of the program's output if it fails.
        """
        folder.mkdir(parents=True)
        command = [self.interpreter, "-m", f"{__name__}.{self.module}", str(folder / STEPS), *self.arguments]
        with (folder / STDOUT).open("w") as output:
            done = subprocess.run(
                [*command, *flags, "--output_dir", str(folder / RUN)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                # On a machine with a GPU, too, the comparison is one of CPUs.
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )
        if done.returncode:
            end = (folder / STDOUT).read_text()[-1500:]
            raise UserError(f"{self.module} ended with code {done.returncode}: {end}")
        ends = [float(line) for line in (folder / STEPS).read_text().split()]
        losses: Losses = import_module(f"{__name__}.{self.module}").losses(folder)
        return Measurement(images_per_second(ends, batch_size, steps_per_epoch), losses)


def images_per_second(ends: list[float], batch_size: int, steps_per_epoch: int) -> float:
    """Pictures a second, from the seconds at which the steps ended.

    An epoch's first step is left out: start-up, the loader's first batch and checkpoints fall into it.

    Raises UserError where no step is left.
    """
    steps = [end - start for number, (start, end) in enumerate(pairwise(ends), 1) if number % steps_per_epoch]
    if not steps:
        raise UserError("an epoch needs at least two steps: more --pictures or a smaller --batch_size")
    return batch_size * len(steps) / sum(steps)
