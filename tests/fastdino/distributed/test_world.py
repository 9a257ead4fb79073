"""Who the processes are, where they meet, and what they agree on."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import FileStore

from fastdino.distributed.agreement import require_equal_start, require_equal_weights
from fastdino.distributed.meeting import meet
from fastdino.distributed.world import ALONE, World, joined, place_from_environment
from fastdino.errors import TrainingFailed, UserError
from tests.fastdino.distributed.processes import PATIENCE, in_processes, in_ranks

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("environment", "local_size"), [(TORCHRUN, 2), (SLURM, 1)])
def test_the_launcher_says_who_we_are(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], local_size: int
) -> None:
    assert place_from_environment() == ALONE
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place_from_environment() == World(3, 8, 1, local_size)


def test_a_rank_on_this_machine_may_come_as_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert place_from_environment(local_rank=2) == World(3, 8, 2)


@pytest.mark.parametrize("rank", ["", "8", "first"])
def test_a_launcher_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(UserError, match="name no rank"):
        place_from_environment()


@pytest.mark.parametrize(
    ("dist_url", "sentence"), [("env://", "MASTER_ADDR and MASTER_PORT"), ("nowhere", "no meeting place")]
)
def test_no_meeting_place(dist_url: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), joined(World(0, 2), dist_url):
        pass


def meet_at_a_port(port: int) -> list[Any]:
    with joined(place_from_environment(), f"tcp://127.0.0.1:{port}") as world:
        world.barrier()
        return [world.mean(torch.tensor([world.rank, 1.0])).tolist(), world.gather(f"rank {world.rank}")]


def test_they_meet_at_a_port_and_talk() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert in_processes(2, meet_at_a_port, port) == [[[0.5, 1.0], ["rank 0", "rank 1"]]] * 2


def meet_twice(meeting_place: str) -> list[str]:
    """Rank 1 comes to the second meeting while all that is there is from the first."""
    place = place_from_environment()
    store = FileStore(meeting_place, place.size)
    heard = []
    for start in range(2):
        if start and place.rank == 0:
            time.sleep(0.5)
        shared = meet(f"file://{meeting_place}", place.rank, place.size, PATIENCE)
        shared.set(f"of rank {place.rank}", f"start {start}")
        heard.append(shared.get(f"of rank {1 - place.rank}").decode())
        # Nobody begins again before both have read.
        store.add(f"read {start}", 1)
        while store.add(f"read {start}", 0) < place.size:
            time.sleep(0.01)
    return heard


def test_processes_that_start_again_meet_those_of_their_own_start(tmp_path: Path) -> None:
    assert in_processes(2, meet_twice, str(tmp_path / "meeting")) == [["start 0", "start 1"]] * 2


def differ_in_one_weight(world: World) -> list[str]:
    weight, told = torch.linspace(0, 1, 1000), []
    require_equal_weights(world, [weight, torch.ones(3)])
    require_equal_start(world, 3, "my_run")
    if world.rank == 1:
        # Swapped, so that the sum stays.
        weight[[3, 4]] = weight[[4, 3]]
    for check in (
        lambda: require_equal_weights(world, [weight, torch.ones(3)]),
        lambda: require_equal_start(world, world.rank, "my_run"),
    ):
        try:
            check()
        except (TrainingFailed, UserError) as error:
            told.append(str(error))
    return told


def test_different_weights_and_starts_end_all_processes() -> None:
    for drifted, started in in_ranks(2, differ_in_one_weight):
        assert "drifted apart" in drifted
        assert "rank 1 does not" in started
