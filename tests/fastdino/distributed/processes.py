"""Functions run in several processes that can talk to one another, on this machine's CPU."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fastdino.distributed.world import World, joined

# Far more than any of these tests takes, and an end to those that hang.
PATIENCE = timedelta(seconds=90)

# Forked from a server that has imported everything once: importing torch takes longer than most of these tests.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.conftest", "fastdino.train.run", "fastdino.train.fused_update"])


def in_ranks(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(world, *arguments)` in `size` processes; what each returns, by rank.

    Functions and what they take and return are pickled: tests' own module-level functions, plain values, tensors as
    numpy arrays. Raises RuntimeError with the trace of a process that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting_place = f"file://{Path(folder) / 'meeting'}"
        pipes = [_context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            _context.Process(target=_run, args=(pipe[1], World(rank, size), meeting_place, function, arguments))
            for rank, pipe in enumerate(pipes)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        try:
            return [_answer(receiver) for receiver, _ in pipes]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _answer(receiver: Connection) -> Any:
    if not receiver.poll(PATIENCE.total_seconds()):
        raise RuntimeError("a process did not answer")
    succeeded, answer = receiver.recv()
    if not succeeded:
        raise RuntimeError(answer)
    return answer


def _run(
    pipe: Connection, place: World, meeting_place: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    try:
        with joined(place, meeting_place, PATIENCE) as world:
            answer = function(world, *arguments)
        pipe.send((True, answer))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
