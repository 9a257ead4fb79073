from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import simulate


def test_a_million_pictures_on_1024_ranks_resumed_on_512() -> None:
    outcome = simulate(1_000_003, 1024, 16)
    assert outcome.drawn == outcome.different == 1_000_003 // (1024 * 16) * 1024 * 16
    assert outcome.position == {"epoch": 3, "samples": 30 * 1024 * 16}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 9), st.integers(0, 500))
def test_any_size_comes_once(half_the_ranks: int, batch_size: int, batches: int, left_over: int) -> None:
    global_batch = 2 * half_the_ranks * batch_size
    pictures = batches * global_batch + left_over % global_batch
    outcome = simulate(pictures, 2 * half_the_ranks, batch_size)
    assert outcome.drawn == outcome.different == batches * global_batch
