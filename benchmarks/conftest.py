"""What the suites share: pairs of implementations, and the fixture that compares them."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.side_by_side import Pair, SideBySide, skip_without
from fastdino import implementation

RATIOS = pytest.StashKey[dict[str, float]]()
PAIRS = {
    "cpu": Pair(torch.device("cpu"), "torch", "reference"),
    "cuda": Pair(torch.device("cuda"), "triton", "torch"),
}


def pytest_configure(config: pytest.Config) -> None:
    """A place for the ratios."""
    config.stash[RATIOS] = {}


@pytest.fixture
def side_by_side(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> SideBySide:
    """Call it with ours, the reference and their tolerances."""
    return SideBySide(benchmark, pytestconfig.stash[RATIOS])


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """PyTorch beside the plain form on the CPU, the kernels beside PyTorch on a GPU."""
    pair = PAIRS[request.param]
    skip_without(request.param)
    if pair.ours == "triton" and (obstacle := implementation.why_no_triton(pair.device)):
        pytest.skip(obstacle)
    return pair


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The ratios, which pytest-benchmark keeps in its JSON alone."""
    if ratios := config.stash[RATIOS]:
        terminalreporter.section("times as fast as the reference")
        for name, ratio in ratios.items():
            terminalreporter.line(f"{ratio:6.2f}x  {name}")
