from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.side_by_side import SideBySide


def test_equal_results_are_timed_in_turn(benchmark: BenchmarkFixture) -> None:
    calls: list[str] = []
    ratios: dict[str, float] = {}

    def of(name: str) -> list[torch.Tensor]:
        calls.append(name)
        return [torch.ones(2)]

    SideBySide(benchmark, ratios)(lambda: of("ours"), lambda: of("reference"), rtol=0, atol=0)
    # Behind the comparison and the two that say how many rounds there is time for.
    assert calls[4:] == ["reference", "ours"] * (len(calls) // 2 - 2)
    # Under --benchmark-disable each runs once more, and nothing is timed.
    assert benchmark.disabled or ratios == {benchmark.name: benchmark.extra_info["times_as_fast"]}


def test_unequal_results_are_not_timed() -> None:
    benchmark = Mock(BenchmarkFixture)
    with pytest.raises(AssertionError, match="not close"):
        SideBySide(benchmark, {})(lambda: torch.ones(2), lambda: torch.full((2,), 1.1), rtol=0, atol=0.01)
    benchmark.pedantic.assert_not_called()
