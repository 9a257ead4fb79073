"""Functions run in several processes on this machine's CPU, as a launcher would start them."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fastdino.distributed.world import joined, place_from_environment

# Far more than any of these tests takes, and an end to those that hang.
PATIENCE = timedelta(minutes=5)

# Forked from a server that has imported everything once: importing torch takes longer than most of these tests.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.conftest", "fastdino.train.run", "fastdino.train.fused_update"])


@contextmanager
def started(size: int, function: Callable[..., Any], *arguments: Any) -> Iterator[list[Connection]]:
    """`function(*arguments)` in `size` processes with torchrun's variables; where each one's answer will come from.

    Functions and what they take and return are pickled: tests' own module-level functions, plain values, arrays. What
    still runs is killed in the end.
    """
    pipes = [_context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        _context.Process(target=_run, args=(sender, rank, size, function, arguments))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    try:
        yield [receiver for receiver, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def in_processes(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function` returns in each of the processes that are `started`, by rank.

    Raises RuntimeError with the trace of a process that fails.
    """
    with started(size, function, *arguments) as receivers:
        return [answer(receiver) for receiver in receivers]


def in_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(world, *arguments)` in `size` processes that have joined."""
    with tempfile.TemporaryDirectory() as folder:
        return in_processes(size, _join_and_call, f"file://{Path(folder) / 'meeting'}", function, *arguments)


def _join_and_call(meeting_place: str, function: Callable[..., Any], *arguments: Any) -> Any:
    with joined(place_from_environment(), meeting_place, PATIENCE) as world:
        return function(world, *arguments)


def answer(receiver: Connection) -> Any:
    """What a process returned. Raises RuntimeError with its trace if it failed."""
    if not receiver.poll(PATIENCE.total_seconds()):
        raise RuntimeError("a process did not answer")
    succeeded, told = receiver.recv()
    if not succeeded:
        raise RuntimeError(told)
    return told


def _run(pipe: Connection, rank: int, size: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    try:
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
