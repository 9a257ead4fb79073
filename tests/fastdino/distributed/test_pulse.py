"""Who is named when a process is waited for in vain."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fastdino.distributed import pulse
from fastdino.distributed.world import joined, place_from_environment
from fastdino.errors import TrainingFailed
from tests.fastdino.distributed.processes import answer, started

HOST = socket.gethostname()
LOST = 1


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def be_elsewhere() -> None:
    time.sleep(60)


def fail() -> None:
    raise ValueError("no such thing")


def wait_for(lost: int, happens: Callable[[], None], meeting_place: str) -> str:
    """`happens` to one of the processes in step 6, where the others wait; what one of these is told."""
    pulse.BEAT, pulse.SILENCE, pulse.ANSWER = 0.1, 1.0, 2.0
    try:
        with joined(place_from_environment(), meeting_place, timedelta(seconds=2)) as world:
            world.begins(5)
            world.barrier()
            if world.rank == lost:
                happens()
            world.begins(6)
            world.barrier()
    except TrainingFailed as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    ("happens", "sentence"),
    [
        (be_killed, f"rank 1 on {HOST} gave no sign of life"),
        (be_stopped, f"rank 1 on {HOST} gave no sign of life"),
        (be_elsewhere, f"rank 1 on {HOST} did not come to step 6"),
        (fail, f"rank 1 on {HOST} ended: ValueError: no such thing"),
    ],
)
def test_the_others_name_the_one_that_is_missing(tmp_path: Path, happens: Callable[[], None], sentence: str) -> None:
    with started(3, wait_for, LOST, happens, f"file://{tmp_path / 'meeting'}") as receivers:
        for rank in (0, 2):
            told = answer(receivers[rank])
            assert told.startswith(sentence)
            assert told.endswith("the same command goes on from the last checkpoint")


def test_the_meeting_place_is_lost_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with started(2, wait_for, 0, be_killed, f"tcp://127.0.0.1:{port}") as receivers:
        assert answer(receivers[1]).startswith(f"rank 1 on {HOST} reaches neither")
