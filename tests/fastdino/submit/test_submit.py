"""Jobs: on this machine for real, and for Slurm as far as its commands can be stood in for."""

from __future__ import annotations

import dataclasses
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from fastdino import TrainConfig, train
from fastdino.cli import flags, main
from fastdino.config import SubmitConfig
from fastdino.distributed.world import World, place_from_environment
from fastdino.submit import run as submitting
from fastdino.submit.task import Training

ROOT = Path(__file__).parents[3]
PATIENCE = 120


def config(data: Path, output: Path, batch: int, epochs: int = 3) -> TrainConfig:
    return TrainConfig(
        arch="test_vit",
        out_dim=64,
        head_hidden_dim=32,
        global_size=32,
        local_size=16,
        local_crops_number=1,
        batch_size_per_gpu=batch,
        epochs=epochs,
        warmup_epochs=0,
        drop_path_rate=0.0,
        saveckp_freq=0,
        num_workers=1,
        data_path=str(data),
        output_dir=str(output),
    )


def submit(settings: TrainConfig, *more: str) -> int:
    return main(["submit", *flags(settings), *more])


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an sbatch that keeps the script it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, does in (("sbatch", f"cp $1 {tmp_path}/script && echo Submitted batch job 71"), ("srun", "exit 1")):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_preempted_job_goes_on(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(picture_folder, tmp_path / "undisturbed", 4))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    output = tmp_path / "job"
    settings = SubmitConfig(**dataclasses.asdict(config(picture_folder, output, 4)), cluster="local", ngpus=1, nodes=1)
    job = submitting.run(settings)
    assert f"tail -F {job.paths.stdout}" in capsys.readouterr().out
    log = output / "log.txt"
    wait_until(lambda: log.exists() and log.read_text().count("\n") == 1, job)
    (process,) = Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split()
    os.kill(int(process), signal.SIGUSR2)
    wait_until(job.done, job)
    said = job.paths.stdout.read_text()
    assert "Calling checkpoint method" in said
    assert "going on after epoch" in said
    ours, theirs = (torch.load(folder / "checkpoint.pth") for folder in (output, tmp_path / "undisturbed"))
    for network in ("student", "teacher"):
        assert all(torch.equal(ours[network][name], x) for name, x in theirs[network].items())


def wait_until(happened: Any, job: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, job.paths.stdout.read_text()
        time.sleep(0.02)


def test_what_slurm_is_asked_for(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(tmp_path, tmp_path / "run" / "%j", 2)
    asked = ["--ngpus=4", "--nodes=3", "--timeout=60", "--partition=fast", "--use_volta32", "--comment=in a hurry"]
    assert submit(settings, *asked) == 0
    said = capsys.readouterr().out
    assert "Submitted job 71: 3 x 4 processes" in said
    assert f"{tmp_path}/run/71/submitit/71_0_log.out" in said
    lines = (tmp_path / "script").read_text().splitlines()
    for wanted in (
        "nodes=3",
        "ntasks-per-node=4",
        "gpus-per-node=4",
        "cpus-per-task=1",
        "mem=160GB",
        "time=60",
        "partition=fast",
        "constraint=volta32gb",
        "comment='in a hurry'",
        f"signal=USR2@{submitting.SECONDS_TO_STOP}",
    ):
        assert f"#SBATCH --{wanted}" in lines
    pickled = tmp_path / "run" / "71" / "submitit" / "71_submitted.pkl"
    task = DelayedSubmission.load(pickled).function
    assert isinstance(task, Training)
    assert task.config == settings
    again = task.checkpoint().function
    assert isinstance(again, Training) and again.config == settings


def test_a_process_of_slurm_knows_its_place(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two nodes with two processes each, the second's first."""
    place = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "71",
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODEID": "1",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_NODELIST": "gpu[7-8]",
    }
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr("fastdino.submit.task.run_command", lambda config, signals: seen.append(config.output_dir))
    Training(TrainConfig(output_dir="runs/%j"))()
    assert seen == ["runs/71"]
    assert place_from_environment() == World(2, 4, 0, 1)
    assert os.environ["MASTER_ADDR"] == "gpu7"
    assert JobEnvironment().job_id == "71"


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--nodes=0", "--nodes must be above 0"),
        ("--gpus=2", "say with --ngpus"),
        ("--epochs=0", "--epochs must be above 0"),
        ("--cluster=local", "give --nodes 1"),
    ],
)
def test_mistakes_are_found_before_the_queue(
    slurm: Path, capsys: pytest.CaptureFixture[str], flag: str, sentence: str
) -> None:
    assert main(["submit", flag]) == 2
    assert sentence in capsys.readouterr().err


def test_slurm_refuses(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho sbatch: error: invalid partition >&2; exit 1\n")
    assert submit(config(tmp_path, tmp_path / "run", 2)) == 2
    # sbatch's own words come before.
    (_, sentence) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("fastdino: Slurm refused the job (sbatch: error: invalid partition)")


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["submit"]) == 2
    assert "no sbatch" in capsys.readouterr().err


def test_without_submitit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(["submit"]) == 2
    assert "pip install 'fastdino[slurm]'" in capsys.readouterr().err


def test_a_mistake_that_the_job_finds_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUBMITIT_DEBUG_JOB_ID", "7")
    with pytest.raises(SystemExit) as ended:
        Training(config(tmp_path / "missing", tmp_path / "run", 2))()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("fastdino: There is no folder")
