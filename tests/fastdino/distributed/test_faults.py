"""Runs in several processes of which one is poisoned, killed or stopped, and that go on."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from benchmarks.cut_link import ADDRESSES, Machine, Unavailable, two_machines
from benchmarks.kills import equal
from fastdino import TrainConfig, train
from fastdino.distributed import pulse
from fastdino.train import loop as loop_module
from fastdino.train import report as report_module
from fastdino.train.log import read_log
from fastdino.train.report import RunReport
from fastdino.train.step import Trainee
from tests.fastdino.distributed.processes import answer, in_processes, started
from tests.fastdino.distributed.test_run import config as config_of_run

# Of two the sum is the same in any order.
RANKS = 3
# Seconds that a process waits for the others: more than one of them needs to begin on a busy machine.
WAIT = 10
CLONE_NEWNET = 0x40000000
HOST = socket.gethostname()


class Fault(NamedTuple):
    """What happens to one process before its step of this number."""

    rank: int
    step: int
    kind: str


def config(data: Path, output: Path, **changes: Any) -> TrainConfig:
    """Four epochs of two steps, saved after each of them."""
    return config_of_run(data, output, RANKS, epochs=4, save_steps=1, saveckp_freq=0, **changes)


def trained(settings: TrainConfig, faults: list[Fault]) -> str:
    """Train while `faults` happen; returns a digest of networks and center in this process."""
    pulse.BEAT, pulse.SILENCE, pulse.ANSWER = 0.2, 1.0, 2.0
    with faulty_steps(faults) as trainees:
        train(settings)
    digest = hashlib.sha256()
    for part in (trainees[-1].student, trainees[-1].teacher, trainees[-1].dino_loss):
        for value in part.state_dict().values():
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def faulty_steps(faults: list[Fault]) -> Iterator[list[Trainee]]:
    """Within it steps suffer `faults`; the trainees of all steps. The report would take longer than the runs."""
    trainees: list[Trainee] = []
    original = loop_module.train_step

    def step(trainee: Trainee, batches: Any, *rest: Any) -> Any:
        trainees.append(trainee)
        undo = [
            HAPPENS[fault.kind](trainee, batches)
            for fault in faults
            if (fault.rank, fault.step) == (trainee.world.rank, len(trainees) - 1)
        ]
        try:
            return original(trainee, batches, *rest)
        finally:
            for forget in undo:
                forget()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "train_step", step)
        patch.setattr(report_module, "write_run_report", lambda *_, **__: RunReport(Path(), None, []))
        yield trainees


def spoil_loss(trainee: Trainee, batches: Any) -> Callable[[], None]:
    batches[0][0][0, 0, 0, 0] = torch.nan
    return lambda: None


def spoil_gradient(trainee: Trainee, batches: Any) -> Callable[[], None]:
    first = next(p for p in trainee.student.parameters() if p.requires_grad)
    return first.register_hook(lambda gradient: gradient * torch.nan).remove


def be_killed(*_: Any) -> Callable[[], None]:
    os.kill(os.getpid(), signal.SIGKILL)
    return lambda: None


def be_stopped(*_: Any) -> Callable[[], None]:
    os.kill(os.getpid(), signal.SIGSTOP)
    return lambda: None


def be_cut_off(*_: Any) -> Callable[[], None]:
    subprocess.run(["ip", "link", "set", os.environ["GLOO_SOCKET_IFNAME"], "down"], check=True)
    return lambda: None


# Each returns what undoes it after the step.
HAPPENS: dict[str, Callable[[Trainee, Any], Callable[[], None]]] = {
    "loss": spoil_loss,
    "gradient": spoil_gradient,
    "killed": be_killed,
    "stopped": be_stopped,
    "cut off": be_cut_off,
}


def meeting(folder: Path) -> str:
    return f"file://{folder / 'meeting'}"


@pytest.fixture(scope="module")
def peaceful(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("peaceful")
    in_processes(RANKS, trained, config(picture_folder, output, dist_url=meeting(output)), [])
    return output


def test_unsound_steps_of_one_rank_are_skipped_by_all_and_three_in_a_row_lead_back(
    picture_folder: Path, tmp_path: Path
) -> None:
    single = [Fault(1, 1, "loss"), Fault(2, 2, "gradient")]
    in_a_row = [Fault(1, step, "loss") for step in (4, 5, 6)]
    settings = config(picture_folder, tmp_path, dist_url=meeting(tmp_path))
    digests = in_processes(RANKS, trained, settings, single + in_a_row)
    assert len(set(digests)) == 1
    assert [line["skipped_steps"] for line in read_log(tmp_path / "log.txt")] == [1, 1, 2, 0]
    for fault in single:
        record = json.loads((tmp_path / "trouble" / f"step_{fault.step}.json").read_text())
        assert record["ranks"] == [{"rank": fault.rank, "host": HOST}]
    assert torch.load(tmp_path / "checkpoint.pth")["fastdino"]["attempt"] == 1


@pytest.mark.parametrize("kind", ["killed", "stopped"])
def test_a_lost_rank_ends_the_run_which_goes_on(
    peaceful: Path, picture_folder: Path, tmp_path: Path, kind: str
) -> None:
    settings = config(picture_folder, tmp_path, dist_timeout=WAIT)
    first, second = (
        dataclasses.replace(settings, dist_url=f"file://{tmp_path / name}") for name in ("first", "second")
    )
    with started(RANKS, trained, first, [Fault(1, 3, kind)]) as receivers:
        for rank in (0, 2):
            with pytest.raises(RuntimeError, match=f"TrainingFailed: rank 1 on {HOST} gave no sign of life"):
                answer(receivers[rank])
    in_processes(RANKS, trained, second, [])
    assert equal(peaceful, tmp_path)


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    try:
        with two_machines() as pair:
            yield pair
    except Unavailable as reason:
        pytest.skip(str(reason))


def trained_on_machines(machines: tuple[Machine, Machine], settings: TrainConfig, faults: list[Fault]) -> str:
    machine = machines[int(os.environ["RANK"])]
    with open(f"/run/netns/{machine.namespace}") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    os.environ["GLOO_SOCKET_IFNAME"] = machine.interface
    return trained(settings, faults)


def test_a_cut_link_ends_both_machines_which_go_on(
    machines: tuple[Machine, Machine], picture_folder: Path, tmp_path: Path
) -> None:
    peaceful, cut = (
        config(picture_folder, tmp_path / name, dist_url=f"tcp://{ADDRESSES[0]}:29500", dist_timeout=WAIT)
        for name in ("peaceful", "cut")
    )
    in_processes(2, trained_on_machines, machines, peaceful, [])
    with started(2, trained_on_machines, machines, cut, [Fault(1, 3, "cut off")]) as receivers:
        for receiver, sentence in zip(
            receivers, ("rank 1 on .* gave no sign", "rank 1 on .* reaches neither"), strict=True
        ):
            with pytest.raises(RuntimeError, match=sentence):
                answer(receiver)
    machines[1].set_link("up")
    in_processes(2, trained_on_machines, machines, cut, [])
    assert equal(tmp_path / "peaceful", tmp_path / "cut")
