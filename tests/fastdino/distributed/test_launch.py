"""`fastdino train --gpus N`: what it starts, and how it ends."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastdino import TrainConfig, train
from fastdino.cli import flags, main, parse
from fastdino.errors import UserError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In place of Python, which takes long to import torch: writes down how it was started, then does as `do` says."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$WORLD_SIZE $*" > {tmp_path}/rank$RANK\n. {tmp_path}/do\n')
    program.chmod(0o755)
    (tmp_path / "do").write_text("")
    monkeypatch.setattr(sys, "executable", str(program))
    # The launcher takes them over for good.
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_every_rank_gets_the_same_flags(stand_in: Path) -> None:
    arguments = [
        "train",
        "--gpus",
        "2",
        "--data_path",
        "my pictures",
        "--lr",
        "1e-4",
        "--global_crops_scale",
        "0.2",
        "1",
    ]
    assert main(arguments) == 0
    for rank in range(2):
        size, *command = (stand_in / f"rank{rank}").read_text().split(maxsplit=3)
        assert (size, *command[:2]) == ("2", "-m", "fastdino")
    _, settings = parse(arguments)
    assert parse(["train", *flags(settings)])[1] == settings


@pytest.mark.parametrize(("do", "code"), [("exit 2", 2), ("kill -9 $$", 137)])
def test_it_ends_as_the_first_that_failed(
    stand_in: Path, capfd: pytest.CaptureFixture[str], do: str, code: int
) -> None:
    (stand_in / "do").write_text(f"if [ $RANK = 1 ]; then {do}; fi; sleep 60")
    with pytest.raises(SystemExit) as ended:
        main(["train", "--gpus", "2"])
    assert ended.value.code == code
    captured = capfd.readouterr()
    assert "no GPU: 2 processes share the CPU" in captured.out
    assert f"rank 1 on {socket.gethostname()}" in captured.err


def test_all_start_again_when_one_is_killed(stand_in: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (stand_in / "do").write_text(
        f"echo life >> {stand_in}/lives$RANK\n"
        f"[ $RANK = 0 ] || [ -e {stand_in}/killed ] || {{ touch {stand_in}/killed; kill -9 $$; }}\n"
        f"[ -e {stand_in}/killed ] || sleep 60"
    )
    assert main(["train", "--gpus", "2"]) == 0
    assert [(stand_in / f"lives{rank}").read_text().count("life") for rank in range(2)] == [2, 2]
    assert "was ended by signal 9 (SIGKILL)" in capfd.readouterr().err


def test_signals_are_passed_on(stand_in: Path) -> None:
    (stand_in / "do").write_text(
        f"trap 'touch {stand_in}/told$RANK; exit 0' TERM\n"
        f"touch {stand_in}/ready$RANK\n"
        # The launcher notes what it has started before it first looks after it, which is soon.
        f"[ $RANK = 0 ] && while [ ! -e {stand_in}/ready1 ]; do sleep 0.1; done && sleep 1 && kill -TERM $PPID\n"
        "sleep 60 & wait"
    )
    with pytest.raises(SystemExit) as ended:
        main(["train", "--gpus", "2"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert all((stand_in / f"told{rank}").exists() for rank in range(2))


def test_more_processes_than_gpus(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["train", "--gpus", "2"]) == 2
    assert "give --gpus 1 or fewer" in capsys.readouterr().err


def test_settings_are_checked_once(stand_in: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--gpus", "2", "--epochs", "0"]) == 2
    assert capfd.readouterr().err.count("--epochs must be above 0") == 1
    assert not (stand_in / "rank0").exists()


def test_the_others_tell_their_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["train", "--epochs", "0"]) == 2
    assert capsys.readouterr().err == ""
    assert "--epochs must be above 0" in (tmp_path / "error.json").read_text()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["train", "--epochs", "0"]) == 2
    assert "--epochs must be above 0" in capsys.readouterr().err


def test_from_python_torchrun_starts_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun"):
        train(TrainConfig(gpus=2))
