from __future__ import annotations

import threading

import pytest

from fastdino.prepare.threads import in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_whoever_is_first(threads: int) -> None:
    gate = threading.Event()

    def work(index: int) -> int:
        if index == 0 and threads > 1:
            assert gate.wait(10)
        if index == 1:
            gate.set()
        return index * index

    assert list(in_order(work, range(50), threads)) == [index * index for index in range(50)]


def test_few_are_in_flight() -> None:
    started: list[int] = []
    results = in_order(lambda index: started.append(index), range(10_000), 2)
    next(results)
    assert len(started) <= 8
    results.close()
    assert len(started) <= 8


def test_an_exception_ends_it() -> None:
    def work(index: int) -> int:
        return 1 // (3 - index)

    results = in_order(work, range(100), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
