"""Several processes with a part of the pictures each train as one process with all of them does."""

from __future__ import annotations

import numpy as np
import pytest

from fastdino.distributed.world import World
from tests.fastdino.distributed.processes import in_ranks
from tests.fastdino.distributed.trainees import (
    TOLERANCE,
    TOLERANCE_OF_DOUBLE,
    Case,
    Outcome,
    farthest,
    make_trainee,
    train,
)

CASES = [
    Case(),
    Case(micro_batches=2, norm_last_layer=False),
    Case(sharded=True),
    Case(sharded=True, micro_batches=2, norm_last_layer=False),
    Case(micro_batches=2, double=True),
    Case(sharded=True, micro_batches=2, double=True),
    Case("triton", steps=2),
    Case("triton", micro_batches=2, norm_last_layer=False, steps=2),
]


def outcomes(world: World, cases: list[Case]) -> list[Outcome]:
    return [train(make_trainee(case, world), case) for case in cases]


@pytest.fixture(scope="module")
def of_two_ranks() -> list[list[Outcome]]:
    return in_ranks(2, outcomes, CASES)


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(str, CASES))
def test_two_ranks_train_as_one_process(of_two_ranks: list[list[Outcome]], index: int) -> None:
    first, second = (of_rank[index] for of_rank in of_two_ranks)
    case = CASES[index]._replace(sharded=False)
    alone = train(make_trainee(case), case)
    assert max(farthest(first, alone)) < (TOLERANCE_OF_DOUBLE if case.double else TOLERANCE)
    assert all(np.array_equal(first.weights[key], second.weights[key]) for key in first.weights)
