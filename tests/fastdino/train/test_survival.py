"""Runs that are stopped, killed, starved or poisoned, and go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdino import TrainConfig, train
from fastdino.errors import TrainingFailed, UserError
from fastdino.train import loop as loop_module
from fastdino.train import report as report_module
from fastdino.train import saving
from fastdino.train.guards import MicroBatchTooLarge
from fastdino.train.log import read_log
from fastdino.train.report import RunReport
from tests.fastdino.train.test_run import assert_same_weights
from tests.fastdino.train.test_run import config as config_of_vit

Step = Callable[..., Any]


def config(data: Path, output: Path, **changes: Any) -> TrainConfig:
    """Of a network whose checkpoint is written in no time."""
    return config_of_vit(data, output, **{"arch": "resnet_small", "global_size": 32, "local_size": 16, **changes})


@pytest.fixture(scope="module", autouse=True)
def no_report() -> Iterator[None]:
    """It would take longer than the runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "write_run_report", lambda *_, **__: RunReport(Path(), None, []))
        yield


@pytest.fixture(scope="module")
def finished(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happens to: two epochs of three steps."""
    output = tmp_path_factory.mktemp("finished")
    train(config(picture_folder, output))
    return output


@pytest.fixture
def before_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Calls a function with (number of the call, trainee, batches) before each step."""

    def install(happens: Callable[..., None]) -> None:
        original, calls = loop_module.train_step, iter(range(10**9))

        def step(trainee: Any, batches: Any, *rest: Any) -> Any:
            happens(next(calls), trainee, batches)
            return original(trainee, batches, *rest)

        monkeypatch.setattr(loop_module, "train_step", step)

    return install


def only(call: int, action: Callable[[], Any]) -> Callable[..., None]:
    """`action` before the step of this number."""

    def happens(number: int, *_: Any) -> None:
        if number == call:
            action()

    return happens


def timeless(output: Path) -> list[dict[str, Any]]:
    lines = read_log(output / "log.txt")
    return [{key: line[key] for key in line if key not in ("images_per_second", "data_wait")} for line in lines]


@pytest.mark.parametrize("stopped_in", [1, 3, 4])
def test_goes_on_within_an_epoch(
    finished: Path, picture_folder: Path, tmp_path: Path, before_step: Any, stopped_in: int
) -> None:
    """In the first epoch, at the end of one, and in the second."""
    before_step(only(stopped_in, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(KeyboardInterrupt) as stop:
        train(config(picture_folder, tmp_path))
    assert stop.value.args == (signal.SIGTERM,)
    saved = torch.load(tmp_path / "checkpoint.pth")
    assert saved["epoch"] * 3 + saved["fastdino"]["samples"] // 4 == stopped_in + 1
    train(config(picture_folder, tmp_path))
    assert_same_weights(finished, tmp_path)
    assert timeless(tmp_path) == timeless(finished)


def test_saves_every_so_many_steps_and_when_asked_to(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_step: Any
) -> None:
    samples = []
    start = saving.CheckpointWriter.start

    def noted(self: Any, content: Any, also: Path | None = None) -> None:
        samples.append(content["epoch"] * 12 + content["fastdino"]["samples"])
        start(self, content, also)

    monkeypatch.setattr(saving.CheckpointWriter, "start", noted)
    before_step(only(3, lambda: os.kill(os.getpid(), signal.SIGUSR1)))
    train(config(picture_folder, tmp_path, save_steps=2))
    assert samples == [8, 12, 16, 24]
    assert_same_weights(finished, tmp_path)


@pytest.mark.parametrize("damage", ["bit", "cut"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(
    finished: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    content = bytearray((output / "checkpoint.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (output / "checkpoint.pth").write_bytes(content if damage == "bit" else content[: len(content) // 2])
    train(config(picture_folder, output))
    assert "is checkpoint.pth.damaged now" in " ".join(capsys.readouterr().out.split())
    assert_same_weights(finished, output)
    for name in ("checkpoint.pth", "checkpoint.1.pth"):
        (output / name).write_bytes(content[:1000])
    with pytest.raises(UserError, match="another checkpoint"):
        train(config(picture_folder, output))


def poison(_: int, trainee: Any, batches: Any) -> None:
    batches[0][0][0, 0, 0, 0] = torch.nan


def test_an_unsound_step_moves_nothing_and_can_be_seen_again(
    picture_folder: Path, tmp_path: Path, before_step: Any
) -> None:
    moved: list[dict[str, Any]] = []

    def happens(call: int, trainee: Any, batches: Any) -> None:
        networks = trainee.student, trainee.teacher, trainee.dino_loss
        moved.append({f"{i}{k}": v.clone() for i, n in enumerate(networks) for k, v in n.state_dict().items()})
        if call == 1:
            poison(call, trainee, batches)

    before_step(happens)
    result = train(config(picture_folder, tmp_path, epochs=1))
    assert result.log[0]["skipped_steps"] == 1
    assert result.log[0]["train_loss"] > 0
    counts = [key for key in moved[0] if key.endswith("num_batches_tracked")]
    assert all(torch.equal(moved[1][key], moved[2][key]) for key in moved[1] if key not in counts)
    assert not torch.equal(moved[0]["0head.last_layer.weight_v"], moved[1]["0head.last_layer.weight_v"])
    record = json.loads((tmp_path / "trouble" / "step_1.json").read_text())
    assert (record["loss"], record["epoch"], record["attempt"]) == ("nan", 0, 0)
    assert len(record["samples"]) == len(set(record["pictures"])) == 4
    assert None in record["gradient_norms"].values()


def test_three_unsound_steps_lead_back_to_another_order(
    picture_folder: Path, tmp_path: Path, before_step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before_step(lambda call, *rest: poison(call, *rest) if 3 <= call < 6 else None)
    result = train(config(picture_folder, tmp_path))
    said = " ".join(capsys.readouterr().out.split())
    assert "the loss became nan at step 5: back to epoch 1, and on with another order of the pictures" in said
    assert [line["skipped_steps"] for line in result.log] == [0, 0]
    assert torch.load(tmp_path / "checkpoint.pth")["fastdino"]["attempt"] == 1


def test_two_ways_back_that_lead_nowhere_end_the_run(picture_folder: Path, tmp_path: Path, before_step: Any) -> None:
    before_step(poison)
    with pytest.raises(TrainingFailed, match="the loss became nan at step 2, and so it went with 2 other orders"):
        train(config(picture_folder, tmp_path, epochs=1))
    assert not (tmp_path / "checkpoint.pth").exists()


def test_memory_that_is_short_halves_the_batches_once(
    picture_folder: Path, tmp_path: Path, before_step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"arch": "vit_tiny", "epochs": 1, "drop_path_rate": 0.0}
    whole = train(config(picture_folder, tmp_path / "whole", **settings))

    def short(call: int, trainee: Any, batches: Any) -> None:
        if len(batches[0][0]) > 2:
            raise MicroBatchTooLarge

    before_step(short)
    halves = train(config(picture_folder, tmp_path / "halves", **settings))
    assert "memory was short for 4 pictures at a time" in " ".join(capsys.readouterr().out.split())
    # float32 sums in another order, over three steps of AdamW.
    assert halves.log[0]["train_loss"] == pytest.approx(whole.log[0]["train_loss"], rel=1e-4)
    with pytest.raises(UserError, match="fastdino plan"):
        train(config(picture_folder, tmp_path / "odd", batch_size_per_gpu=3))


def test_a_disk_that_is_full_for_a_while(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, iter(range(100))

    def full_at_first(content: Any, file: Any) -> None:
        if next(calls) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full_at_first)
    train(config(picture_folder, tmp_path))
    assert_same_weights(finished, tmp_path)


# TensorBoard's own thread dies of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_output_folder_that_vanishes_comes_back(
    finished: Path, picture_folder: Path, tmp_path: Path, before_step: Any
) -> None:
    before_step(only(4, lambda: shutil.rmtree(tmp_path / "out")))
    train(config(picture_folder, tmp_path / "out"))
    assert_same_weights(finished, tmp_path / "out")
    assert timeless(tmp_path / "out") == timeless(finished)


def test_pictures_that_vanish_count_as_unreadable(picture_folder: Path, tmp_path: Path, before_step: Any) -> None:
    data = tmp_path / "data"
    shutil.copytree(picture_folder, data)
    before_step(only(1, lambda: shutil.rmtree(data / "red")))
    result = train(config(data, tmp_path / "out"))
    assert len(result.log) == 2
    assert any(name.startswith("red/") for name in result.skipped)
