"""Steps whose numbers are not finite: skipped, written down, and taken back when there are too many."""

from __future__ import annotations

import dataclasses
import json
import math
import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdino.config import TrainConfig
from fastdino.data.loader import MultiCropLoader
from fastdino.data.order import EpochOrder
from fastdino.distributed.parts import local
from fastdino.distributed.world import World
from fastdino.files import write_atomically
from fastdino.train.position import Position, seed_of_attempt
from fastdino.train.step import Trainee

FOLDER = "trouble"
# One bad picture or batch makes one unsound step; what makes three in a row would make every one.
MOST_IN_A_ROW = 3
MOST_ROLLBACKS = 2
AFTER_DIVERGENCE = "the last checkpoint is from before that; lower --lr, set --clip_grad 0.3, or try --precision fp32"


class Diverged(Exception):
    """The run has to go back: half a sentence on why."""


@torch.no_grad()
def require_finite_weights(network: nn.Module, world: World) -> None:
    """Raises Diverged, in all processes, if any weight is NaN or infinite in any of them."""
    if world.any(~torch.stack([local(parameter).isfinite().all() for parameter in network.parameters()]).all()):
        raise Diverged("the weights stopped being numbers")


def ranks_at_fault(trainee: Trainee) -> list[dict[str, Any]]:
    """Rank and host of the processes whose own numbers made the latest unsound step so; all have to ask for it.

    Empty where a gradient of split networks was it, which no process sees before it is the sum of all.
    """
    own = {"rank": trainee.world.rank, "host": socket.gethostname()}
    told = trainee.world.gather((trainee.update.at_fault.item(), own))
    return [place for at_fault, place in told if at_fault]


def what_happened(loss: float, step: int, ranks: list[dict[str, Any]]) -> str:
    """Half a sentence on an unsound step, with the `ranks_at_fault` where there are several processes."""
    places = ", ".join(f"rank {place['rank']} on {place['host']}" for place in ranks)
    where = f" of {places}" if places else ""
    if math.isfinite(loss):
        return f"a gradient{where} stopped being a number at step {step}"
    return f"the loss{where} became {loss} at step {step}"


def record(
    folder: Path,
    config: TrainConfig,
    trainee: Trainee,
    loader: MultiCropLoader,
    position: Position,
    step: int,
    first_sample: int,
    loss: float,
    ranks: list[dict[str, Any]],
) -> None:
    """Write `trouble/step_N.json`: what is needed to see an unsound step again, from a checkpoint before it.

    `first_sample` is the step's first in its epoch, `ranks` those at fault. The norms are of the latest unsound step's
    gradients, None for those that are not finite. Raises OSError.
    """
    seed = seed_of_attempt(config.seed, position.attempt)
    count = config.batch_size * trainee.world.size
    norms: dict[str, Any] = {}
    names = [name for name, _ in trainee.student.named_parameters()]
    for name, norm in zip(names, trainee.update.norms.tolist(), strict=True):
        norms[name] = norm if math.isfinite(norm) else None
    samples = _samples(loader, seed, position.epoch, first_sample, count)
    content = {
        "step": step,
        "epoch": position.epoch,
        "attempt": position.attempt,
        "seed": seed,
        "ranks": ranks,
        "loss": loss if math.isfinite(loss) else str(loss),
        "samples": samples,
        "pictures": [loader.source.name(index) for index in samples],
        "gradient_norms": norms,
        "config": dataclasses.asdict(config),
    }
    (folder / FOLDER).mkdir(exist_ok=True)
    write_atomically(folder / FOLDER / f"step_{step}.json", json.dumps(content, indent=2) + "\n")


def _samples(loader: MultiCropLoader, seed: int, epoch: int, first: int, count: int) -> list[int]:
    """Indices of a step's pictures; a stream, which goes by an order of its own, has none to give."""
    if getattr(loader.source, "sequential", False):
        return []
    order = EpochOrder(seed, epoch, len(loader.source))
    indices: list[int] = order[torch.arange(first, first + count).numpy()].tolist()
    return indices


def trailing(flags: Tensor) -> int:
    """How many of the last of `flags` (n,) are set without a gap."""
    unset = (flags == 0).nonzero()
    return len(flags) if not len(unset) else len(flags) - 1 - int(unset[-1])
