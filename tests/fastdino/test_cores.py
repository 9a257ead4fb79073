from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from fastdino.cores import over_cores


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_items_go_to_several_threads_and_come_back_in_order() -> None:
    both = threading.Barrier(2, timeout=30)
    threads = set()

    def square(number: int) -> tuple[int, int]:
        both.wait()  # breaks unless two are at work at once
        threads.add(threading.get_ident())
        return number**2, torch.get_num_threads()

    assert over_cores(square, range(6)) == [(number**2, 1) for number in range(6)]
    assert len(threads) == 2
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_failure_comes_out_and_torch_has_its_threads_back() -> None:
    def fail(number: int) -> int:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        over_cores(fail, range(3))
    assert torch.get_num_threads() == 2


def test_one_thread_needs_no_others() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert over_cores(lambda _: threading.get_ident(), range(2)) == [threading.get_ident()] * 2
    finally:
        torch.set_num_threads(before)
