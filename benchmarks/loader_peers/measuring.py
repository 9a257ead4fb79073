"""One peer in a process of its own, measured whenever it is its turn."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loader_peers import PEERS

# Libraries that would start threads of their own: a peer shall use as many as it is asked to.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

DECODE_ONLY = "Pillow's decoding alone"

# Batches that wait in a queue cost nothing when they are taken.
_DROPPED_BATCHES = 4
_DROPPED_SECONDS = 0.5
_IDLE_SECONDS = 0.1


@dataclass(frozen=True)
class Settings:
    """What is the same for every peer."""

    folder: Path
    count: int
    """Pictures of the folder that are used."""
    batch_size: int
    measured: int
    """Pictures at least in a measurement."""
    seconds: float
    """Duration at least of a measurement."""


class Measurement(NamedTuple):
    """Seconds that a number of pictures took."""

    pictures: int
    wall: float
    cpu: float
    """Of the process, all its threads and its worker processes."""

    @property
    def per_second(self) -> float:
        return self.pictures / self.wall

    @property
    def per_cpu_second(self) -> float:
        return self.pictures / self.cpu


class Runner:
    """A process that keeps a peer's loaders open between its turns; what it raises is raised here."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        # A fresh interpreter, since the environment counts when libraries load.
        self._process = ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=({**ONE_THREAD, **PEERS[name].environment},),
        )

    def measure(self, threads: int) -> Measurement:
        return self._process.submit(_measure, self._name, threads, self._settings).result()

    def profile(self) -> dict[str, float]:
        """Milliseconds a picture in each stage of our loader, and `DECODE_ONLY` for comparison."""
        return self._process.submit(_profile, self._settings).result()

    def close(self) -> None:
        self._process.shutdown()


_batches: dict[int, Iterator[Any]] = {}


def _prepare(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)


def _measure(name: str, threads: int, settings: Settings) -> Measurement:
    if threads not in _batches:
        _batches[threads] = PEERS[name].batches(settings.folder, settings.count, threads, settings.batch_size)
    measurement = measure(_batches[threads], settings)
    _settle()
    return measurement


def measure(batches: Iterator[Any], settings: Settings) -> Measurement:
    """Take batches, at least as many pictures and for as long as the settings say, after dropping the first ones."""
    started, dropped = time.perf_counter(), 0
    while dropped < _DROPPED_BATCHES or time.perf_counter() - started < _DROPPED_SECONDS:
        next(batches)
        dropped += 1
    cpu, started, pictures = cpu_seconds(), time.perf_counter(), 0
    while pictures < settings.measured or time.perf_counter() - started < settings.seconds:
        pictures += len(next(batches)[0])
    return Measurement(pictures, time.perf_counter() - started, cpu_seconds() - cpu)


def cpu_seconds() -> float:
    """CPU time of this process and of its living worker processes so far."""
    return time.process_time() + sum(_cpu_seconds_of(child.pid) for child in multiprocessing.active_children())


def _cpu_seconds_of(pid: int | None) -> float:
    # The name in parentheses may hold spaces: fields are counted from behind it, where utime and stime are 12 and 13.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _settle() -> None:
    """Wait until the queues are full: the next peer must not be measured while this one still works."""
    before = cpu_seconds()
    while True:
        time.sleep(_IDLE_SECONDS)
        now = cpu_seconds()
        if now - before < _IDLE_SECONDS / 5:
            return
        before = now


def _profile(settings: Settings) -> dict[str, float]:
    from benchmarks.loader_peers import ours

    stages = ours.stages(settings.folder, settings.count, settings.batch_size, settings.seconds)
    return {**stages, DECODE_ONLY: ours.decoding(settings.folder, settings.count, settings.seconds)}
