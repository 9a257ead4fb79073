"""The processes that train together, one a GPU, and this one's place among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from fastdino.config import TrainConfig
from fastdino.distributed.meeting import meet
from fastdino.distributed.pulse import Pulse, failures_named
from fastdino.errors import UserError

PATIENCE = timedelta(seconds=TrainConfig.dist_timeout)

# What torchrun and srun call rank, number of ranks and rank on this machine. Slurm's own come second: torchrun may have
# been started by srun.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True)
class World:
    """This process's `rank` of `size`, and `local_rank` of the `local_size` that share this machine's cores."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    pulse: Pulse | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """This process's GPU, or the CPU where there is none."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank) if self.size > 1 else torch.device("cuda")

    def mean(self, x: Tensor) -> Tensor:
        """`x` averaged over all processes, which all have to ask for it."""
        if self.size == 1:
            return x
        total = x.clone()
        distributed.all_reduce(total)
        return total / self.size

    def any(self, flag: Tensor) -> Tensor:
        """Whether `flag` (bool) is set in any process, which all have to ask; nothing waits for a GPU."""
        if self.size == 1:
            return flag
        raised = flag.to(torch.float32)
        distributed.all_reduce(raised, op=distributed.ReduceOp.MAX)
        return raised > 0

    def largest(self, numbers: list[int]) -> list[int]:
        """The largest of each number over all processes, which all have to ask for it."""
        if self.size == 1:
            return numbers
        largest = torch.tensor(numbers)
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        return [int(number) for number in largest]

    def gather(self, thing: Any) -> list[Any]:
        """Each process's `thing`, by rank: for small Python objects."""
        if self.size == 1:
            return [thing]
        things = [None] * self.size
        distributed.all_gather_object(things, thing)
        return things

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def begins(self, step: int) -> None:
        """Let the others know how far this process is, should they wait for it in vain."""
        if self.pulse is not None:
            self.pulse.step = step


ALONE = World()


def place_from_environment(local_rank: int = 0) -> World:
    """This process's place as its launcher tells it, ALONE without one.

    Args:
        local_rank: where the launcher says it by a flag and not in the environment.

    Raises UserError if what the launcher says makes no sense.
    """
    for names in LAUNCHERS:
        if int(os.environ.get(names[1], "1")) > 1:
            given = [os.environ.get(name) for name in names]
            try:
                rank, size = int(given[0] or ""), int(given[1] or "")
                # srun gives each of its processes cores of its own.
                local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
                place = World(rank, size, local_rank if given[2] is None else int(given[2]), local_size)
            except ValueError:
                place = World(-1)
            if not 0 <= place.rank < place.size:
                said = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
                raise UserError(f"the launcher's {said} name no rank: start with torchrun or fastdino train --gpus N")
            return place
    return ALONE


@contextmanager
def joined(place: World, dist_url: str = "env://", patience: timedelta = PATIENCE) -> Iterator[World]:
    """Within it the processes can talk: NCCL between GPUs, gloo between CPUs.

    Args:
        dist_url: where they meet: env:// (MASTER_ADDR and MASTER_PORT), tcp://host:port, or file:///new_shared_file.
        patience: how long any of them waits for the others before it gives up.

    Raises UserError if there is no such place or GPU, or the others do not come, and TrainingFailed with the rank and
    host of a process that is lost later.
    """
    if place.size == 1:
        yield place
        return
    _require_a_meeting_place(dist_url)
    device = place.device
    if device.type == "cuda":
        if place.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {place.local_rank} on this machine has no GPU of its own (there are "
                f"{torch.cuda.device_count()}): start at most one process a GPU"
            )
        torch.cuda.set_device(device)
    try:
        store = meet(dist_url, place.rank, place.size, patience)
        pulse = Pulse(distributed.PrefixStore("pulse", store), place.rank, place.size)
        distributed.init_process_group(
            # Small things of the host's own go by gloo, without touching the GPU.
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=distributed.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.size,
            timeout=patience,
        )
    except (distributed.DistStoreError, distributed.DistNetworkError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"rank {place.rank} of {place.size} did not meet the others at {_meeting_place(dist_url)} ({reason}): see "
            f"that all are started, and that this machine reaches that address"
        ) from error
    try:
        with pulse, failures_named(pulse):
            yield replace(place, pulse=pulse)
    finally:
        distributed.destroy_process_group()


def _require_a_meeting_place(dist_url: str) -> None:
    if dist_url.startswith(("tcp://", "file://")):
        return
    if not dist_url.startswith("env://"):
        raise UserError(f"--dist_url {dist_url} is no meeting place: leave it out, or give tcp://host:port")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} of the first process are unknown: start with torchrun, or give --dist_url "
            "tcp://host:port"
        )


def _meeting_place(dist_url: str) -> str:
    if dist_url.startswith("env://"):
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return dist_url
