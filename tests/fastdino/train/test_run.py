"""Whole runs on a dozen small pictures."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor

from fastdino import TrainConfig, train
from fastdino import implementation as implementations
from fastdino.cli import main
from fastdino.errors import TrainingFailed, UserError
from fastdino.train import loop as loop_module
from fastdino.train import report as report_module
from fastdino.train import run as run_module
from fastdino.train import trainer as trainer_module
from fastdino.train.log import read_log
from fastdino.train.loop import Loop

LOG_KEYS = {
    "train_loss",
    "train_lr",
    "train_wd",
    "epoch",
    "train_teacher_entropy",
    "train_kl",
    "train_feature_std",
    "skipped_steps",
    "images_per_second",
    "data_wait",
    "pictures",
    "knn_top1",
}


def config(data: Path, output: Path, **changes: Any) -> TrainConfig:
    """A run of a few seconds; stochastic depth on, so that its randomness is part of what must repeat."""
    small = TrainConfig(
        arch="vit_tiny",
        patch_size=8,
        out_dim=64,
        head_hidden_dim=32,
        global_size=16,
        local_size=8,
        local_crops_number=2,
        batch_size_per_gpu=4,
        epochs=2,
        warmup_epochs=0,
        freeze_last_layer=0,
        drop_path_rate=0.3,
        num_workers=0,
        data_path=str(data),
        output_dir=str(output),
    )
    return dataclasses.replace(small, **changes)


def flags(settings: TrainConfig) -> list[str]:
    """The command line that gives `settings`."""
    arguments = ["train"]
    for name, value in dataclasses.asdict(settings).items():
        arguments += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return arguments


def weights(output: Path) -> dict[str, Tensor]:
    content = torch.load(output / "checkpoint.pth")
    return {**content["student"], **{f"teacher.{key}": value for key, value in content["teacher"].items()}}


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.fixture(scope="module")
def finished(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("finished")
    train(config(picture_folder, output))
    return output


def test_leaves_the_promised_files(finished: Path, picture_folder: Path) -> None:
    assert {"checkpoint.pth", "checkpoint0000.pth", "log.txt", "config.json", "report.html", "results.json"} <= set(
        os.listdir(finished)
    )
    lines = read_log(finished / "log.txt")
    assert [line["epoch"] for line in lines] == [0, 1]
    assert [line.keys() for line in lines] == [LOG_KEYS | {"knn_top1_random_init"}, LOG_KEYS]
    saved = json.loads((finished / "config.json").read_text())
    assert run_module.validated(TrainConfig(**saved))[0] == run_module.validated(config(picture_folder, finished))[0]
    assert list((finished / "tensorboard").glob("events.*"))
    assert torch.load(finished / "checkpoint.pth")["epoch"] == 2


def test_the_first_line_says_who_computes_what(
    picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(picture_folder, tmp_path, epochs=1))
    said = " ".join(capsys.readouterr().out.split())
    assert "loss, teacher, update, normalisation, norms by torch (the device is a CPU)" in said
    assert "attention by sdpa (the device is a CPU)" in said


def test_without_a_map_there_is_still_a_report(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report_module, "feature_map", fail)
    result = train(config(picture_folder, tmp_path / "run", epochs=1))
    assert "no map was drawn: [Errno 28] No space left on device" in capsys.readouterr().out
    assert "map.html" not in result.report.read_text()
    assert not (tmp_path / "run" / "map.html").exists()


def test_training_changes_student_and_teacher(finished: Path) -> None:
    first, last = torch.load(finished / "checkpoint0000.pth"), torch.load(finished / "checkpoint.pth")
    for network, prefix in (("student", "module."), ("teacher", "")):
        key = f"{prefix}backbone.blocks.0.attn.qkv.weight"
        assert not torch.equal(first[network][key], last[network][key])


def test_the_same_seed_gives_the_same_weights_whatever_prepares_the_crops(
    finished: Path, picture_folder: Path, tmp_path: Path
) -> None:
    train(config(picture_folder, tmp_path, num_workers=2))
    assert_same_weights(finished, tmp_path)


def test_another_seed_gives_other_weights(finished: Path, picture_folder: Path, tmp_path: Path) -> None:
    train(config(picture_folder, tmp_path, seed=1))
    assert not torch.equal(
        weights(finished)["teacher.backbone.cls_token"], weights(tmp_path)["teacher.backbone.cls_token"]
    )


def test_goes_on_after_ctrl_c(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Any, progress: Any) -> dict[str, Any]:
        if self.position.epoch == 1:
            raise KeyboardInterrupt
        return original(self, progress)

    original = Loop.epoch
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config(picture_folder, tmp_path))
    assert torch.load(tmp_path / "checkpoint.pth")["epoch"] == 1
    result = train(config(picture_folder, tmp_path))
    assert [line["epoch"] for line in result.log] == [0, 1]
    assert_same_weights(finished, tmp_path)


def test_other_settings_are_noted_when_going_on(
    finished: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    train(config(picture_folder, tmp_path / "copy"))
    assert "other settings" not in capsys.readouterr().out
    train(config(picture_folder, tmp_path / "copy", clip_grad=0.5))
    assert "other settings: --clip_grad was 3.0 and is 0.5" in capsys.readouterr().out
    (tmp_path / "copy" / "config.json").write_text("{not json")
    train(config(picture_folder, tmp_path / "copy"))
    assert "other settings" not in capsys.readouterr().out


def test_killed_between_log_and_checkpoint_leaves_no_double_lines(
    finished: Path, picture_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    shutil.copy(finished / "checkpoint0000.pth", tmp_path / "copy" / "checkpoint.pth")
    train(config(picture_folder, tmp_path / "copy"))
    assert [line["epoch"] for line in read_log(tmp_path / "copy" / "log.txt")] == [0, 1]
    assert_same_weights(finished, tmp_path / "copy")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_goes_on_after_signals(picture_folder: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    settings = config(picture_folder, tmp_path, epochs=500, num_workers=1)
    command = [sys.executable, "-m", "fastdino", *flags(settings)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    if number != signal.SIGKILL:
        assert errors.count("\n") == 1
        assert "the same command goes on" in errors
    done = torch.load(tmp_path / "checkpoint.pth")["epoch"]
    assert 1 <= done < 500
    (tmp_path / ".checkpoint.pth.left.tmp").write_bytes(b"half a")
    result = train(dataclasses.replace(settings, epochs=done + 1))
    assert list(tmp_path.glob(".*.tmp")) == []
    assert [line["epoch"] for line in result.log] == list(range(done + 1))


def test_accumulated_batches_make_one_step(picture_folder: Path, tmp_path: Path) -> None:
    together = config(picture_folder, tmp_path / "together", batch_size_per_gpu=4, drop_path_rate=0.0, epochs=1)
    apart = dataclasses.replace(
        together, batch_size_per_gpu=2, accumulation_steps=2, output_dir=str(tmp_path / "apart")
    )
    results = [train(together), train(apart)]
    # The same pictures in the same order; float32 sums in another one, over three steps of AdamW.
    assert results[0].log[0]["train_loss"] == pytest.approx(results[1].log[0]["train_loss"], rel=1e-4)
    assert results[0].log[0]["train_lr"] == results[1].log[0]["train_lr"]


def test_convnets_train_through_the_same_step(picture_folder: Path, tmp_path: Path) -> None:
    settings = config(
        picture_folder, tmp_path, arch="resnet18", optimizer="sgd", global_size=32, local_size=32, epochs=1
    )
    result = train(settings)
    assert result.report.exists()
    assert result.log[0]["train_loss"] > 0


def test_unreadable_pictures_are_skipped_and_listed(picture_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(picture_folder, data)
    (data / "red" / "1.png").write_bytes(b"")
    (data / "blue" / "2.png").write_bytes((data / "blue" / "2.png").read_bytes()[:100])
    result = train(config(data, tmp_path / "out", epochs=1))
    assert len(result.skipped) == 2
    listed = (tmp_path / "out" / "skipped.txt").read_text()
    assert "red/1.png\t" in listed
    assert "blue/2.png\t" in listed


def test_only_unreadable_pictures(tmp_path: Path) -> None:
    for index in range(8):
        (tmp_path / f"{index}.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="read"):
        train(config(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size_per_gpu": 13}, "12 pictures are fewer than one batch of 13"),
        ({"accumulation_steps": 4}, "--accumulation_steps"),
        ({"arch": "vit_b_16"}, "cannot take crops"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    picture_folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        train(config(picture_folder, tmp_path, **changes))


def test_the_kernels_train_alike_and_the_log_says_so(
    picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    changes = {"arch": "resnet_small", "out_dim": 61, "head_hidden_dim": 8, "epochs": 1}
    losses = {}
    for implementation in ("torch", "triton"):
        result = train(config(picture_folder, tmp_path / implementation, implementation=implementation, **changes))
        losses[implementation] = result.log[0]["train_loss"]
        said = " ".join(capsys.readouterr().out.split())
        assert f"loss, teacher, update, normalisation, norms by {implementation} (as asked for)" in said
        assert ("rows of 61 logits do not start and end at 16-byte" in said) == (implementation == "triton")
    # Three steps of float32 after another order of sums.
    assert losses["triton"] == pytest.approx(losses["torch"], rel=1e-4)


def test_kernels_that_cannot_run_are_refused_at_once(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    implementations.choose.cache_clear()
    monkeypatch.setattr(implementations, "why_no_triton", lambda device: "there is none")
    with pytest.raises(UserError, match="--implementation triton: the Triton kernels cannot be used: there is none"):
        train(config(picture_folder, tmp_path, implementation="triton"))
    implementations.choose.cache_clear()


def test_checkpoint_of_another_architecture(finished: Path, picture_folder: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "checkpoint.pth", tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=r"does not fit the model .* or another --output_dir"):
        train(config(picture_folder, tmp_path, patch_size=4))


@pytest.mark.parametrize("parent", ["file", "x" * 300])
def test_output_folder_that_cannot_be_made(picture_folder: Path, tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*another --output_dir"):
        train(config(picture_folder, tmp_path / parent / "out"))


def test_full_disk_keeps_the_last_checkpoint(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = (tmp_path / "out" / "checkpoint.pth").read_bytes()
    real_save = torch.save

    def full(content: Any, file: BinaryIO) -> None:
        file.write(b"half a")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        train(config(picture_folder, tmp_path / "out", epochs=3))
    assert (tmp_path / "out" / "checkpoint.pth").read_bytes() == before
    monkeypatch.setattr(torch, "save", real_save)
    assert len(train(config(picture_folder, tmp_path / "out", epochs=3)).log) == 3


def test_a_loss_that_is_no_number_ends_the_run(
    picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingFailed, match=r"the loss became (nan|inf) at step"):
        train(config(picture_folder, tmp_path, lr=1e38, clip_grad=0.0, weight_decay=0.0))
    capsys.readouterr()
    assert main(flags(config(picture_folder, tmp_path, lr=1e38, clip_grad=0.0, weight_decay=0.0))) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_broken_by_the_last_step_are_not_saved(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of that step was still a number."""
    shutil.copytree(finished, tmp_path / "copy")
    before = (tmp_path / "copy" / "checkpoint.pth").read_bytes()
    original = loop_module.train_step

    def breaking(trainee: Any, *arguments: Any) -> Any:
        metrics = original(trainee, *arguments)
        if arguments[1].momentum == schedule_end:
            with torch.no_grad():
                trainee.student.backbone.cls_token[0, 0, 0] = torch.nan
        return metrics

    settings = config(picture_folder, tmp_path / "copy", epochs=3)
    schedule_end = trainer_module.build_schedules(run_module.validated(settings)[0], 3).at(8).momentum
    monkeypatch.setattr(loop_module, "train_step", breaking)
    with pytest.raises(TrainingFailed, match="the weights stopped being numbers"):
        train(settings)
    assert (tmp_path / "copy" / "checkpoint.pth").read_bytes() == before


def test_a_finished_run_is_left_as_it_is(finished: Path, picture_folder: Path) -> None:
    before = (finished / "checkpoint.pth").read_bytes()
    result = train(config(picture_folder, finished))
    assert len(result.log) == 2
    assert (finished / "checkpoint.pth").read_bytes() == before
