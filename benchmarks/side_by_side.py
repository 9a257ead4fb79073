"""Two ways to one result: equal first, then timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

# What a case takes, short ones and long ones alike.
SECONDS = 4.0
ROUNDS = (3, 50)
# Images of a batch that give a device something to do.
IMAGES = {"cpu": 2, "cuda": 64}


class Pair(NamedTuple):
    """Two implementations of one operation on a device."""

    device: torch.device
    ours: str
    reference: str

    @property
    def images(self) -> int:
        """Of a batch."""
        return IMAGES[self.device.type]


class SideBySide:
    """The fixture `side_by_side`."""

    def __init__(self, benchmark: BenchmarkFixture, ratios: dict[str, float]) -> None:
        self.benchmark, self.ratios = benchmark, ratios

    def __call__(self, ours: Callable[[], Any], reference: Callable[[], Any], *, rtol: float, atol: float) -> None:
        """Compare what both return, tensors or sequences of them; then time one after the other, round by round.

        The ratio is the median of the rounds' own, so that a machine that slows down slows both.
        """
        torch.testing.assert_close(ours(), reference(), rtol=rtol, atol=atol)
        rounds = int(SECONDS / (_seconds(ours) + _seconds(reference)))
        of_reference: list[float] = []
        self.benchmark.pedantic(
            _finished,
            args=(ours,),
            # Called before each round, outside its time.
            setup=lambda: of_reference.append(_seconds(reference)),
            rounds=min(max(rounds, ROUNDS[0]), ROUNDS[1]),
        )
        if self.benchmark.stats is None:
            # --benchmark-disable: equality was all that was asked for.
            return
        of_ours = self.benchmark.stats.stats.data
        ratio = median(theirs / mine for theirs, mine in zip(of_reference, of_ours, strict=True))
        self.benchmark.extra_info["times_as_fast"] = self.ratios[self.benchmark.name] = ratio


def skip_without(device: str) -> None:
    """Skip a case for a GPU where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")


def _finished(function: Callable[[], Any]) -> None:
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    _finished(function)
    return time.perf_counter() - start
