"""Nearest neighbours' accuracy over a run: right, and without a trace in what is trained."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastdino import TrainConfig, train
from fastdino.data.sources import FolderSource
from fastdino.distributed.sharding import shard
from fastdino.distributed.world import ALONE, World
from fastdino.errors import UserError
from fastdino.evaluate.features import extract_features
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.train import knn_watch as module
from fastdino.train import report as report_module
from fastdino.train.build import initial_network
from fastdino.train.guards import Tolerated
from fastdino.train.knn_watch import MEASUREMENTS, KnnWatch, measured_epochs
from fastdino.train.log import RunLog, read_log
from fastdino.train.position import Position
from fastdino.train.report import RunReport
from fastdino.train.trainer import Trainer
from tests.fastdino.distributed.processes import in_ranks
from tests.fastdino.train.test_run import assert_same_weights
from tests.fastdino.train.test_survival import config, timeless


def no_report(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(report_module, "write_run_report", lambda *_, **__: RunReport(Path(), None, []))


@pytest.fixture(scope="module")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in three classes, of colours so much alike that accuracies are neither 0 nor 100."""
    root = tmp_path_factory.mktemp("tints")
    generator = np.random.default_rng(0)
    for channel, name in enumerate("abc"):
        (root / name).mkdir()
        for index in range(4):
            tint = generator.normal(100, 30, 3)
            tint[channel] += 40
            pixels = generator.normal(tint, 40, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def finished(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happens to, without its report."""
    output = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        no_report(patch)
        train(config(picture_folder, output))
    return output


def forward_passes(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]) -> None:
    """`before` is called with the number of each batch that is measured."""
    original, calls = module.features_of, iter(range(10**9))

    def features_of(*arguments: Any) -> Any:
        before(next(calls))
        return original(*arguments)

    monkeypatch.setattr(module, "features_of", features_of)


@pytest.mark.parametrize("epochs", [1, 2, 10, 11, 19, 20, 100, 801])
def test_first_and_last_epoch_and_some_evenly_between(epochs: int) -> None:
    measured = sorted(measured_epochs(epochs))
    assert (measured[0], measured[-1]) == (0, epochs - 1)
    assert len(measured) == epochs if epochs <= MEASUREMENTS else MEASUREMENTS <= len(measured) <= MEASUREMENTS + 1
    gaps = {after - before for before, after in pairwise(measured[1:])}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_log_says_what_the_report_measures_anew(
    finished: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = read_log(finished / "log.txt")
    assert 0 < lines[-1]["knn_top1"] < 100
    shutil.copytree(finished, tmp_path / "copy")
    # Nothing is left of the run that measured, and nothing in the log: pictures and networks are read again.
    (tmp_path / "copy" / "log.txt").write_text(
        "".join(json.dumps({key: line[key] for key in line if "knn" not in key}) + "\n" for line in lines[:1])
    )
    result = train(config(picture_folder, tmp_path / "copy"))
    assert result.knn is not None
    assert result.knn["knn_top1"] == lines[-1]["knn_top1"]
    assert result.knn["knn_top1_random_init"] == lines[0]["knn_top1_random_init"]
    assert f"before training: nearest neighbours name the right class for {lines[0]['knn_top1_random_init']:.1f} %" in (
        " ".join(capsys.readouterr().out.split())
    )


def test_the_report_compares_like_with_like_after_other_pictures_were_measured(
    finished: Path, picture_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    lines = read_log(finished / "log.txt")
    lines[0]["knn_top1_random_init"] = 1.5
    (tmp_path / "copy" / "log.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    knn = train(config(picture_folder, tmp_path / "copy")).knn
    assert knn is not None
    assert knn["knn_top1_random_init"] != 1.5


def test_the_report_takes_what_was_measured(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastdino.evaluate import compare

    def measured_again(model: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(type(model))

    monkeypatch.setattr(compare, "extract_features", measured_again)
    result = train(config(picture_folder, tmp_path, epochs=1), held_out=FolderSource(picture_folder))
    assert result.knn is not None
    assert result.knn["knn_top1"] == result.log[0]["knn_top1"]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Scalars("epoch/knn_top1")[0].value == pytest.approx(result.log[0]["knn_top1"])


def test_training_is_the_same_without(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_report(monkeypatch)
    monkeypatch.setattr(Trainer, "_watch", lambda self: None)
    train(config(picture_folder, tmp_path))
    assert_same_weights(finished, tmp_path)
    assert not any("knn" in key for line in read_log(tmp_path / "log.txt") for key in line)


def states() -> list[bytes]:
    """Of all generators of random numbers."""
    return [
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state(legacy=False)).encode(),
        repr(random.getstate()).encode(),
    ]


def watch(settings: TrainConfig, output: Path, world: World = ALONE) -> tuple[KnnWatch, RunLog]:
    """A watch over the pictures of `settings`, and a log with a line for the first epoch."""
    log = RunLog(output, 0, 0, Tolerated(Console()), world.is_main)
    log.epoch({"epoch": 0})
    source = FolderSource(Path(settings.data_path))
    return KnnWatch(settings, source, None, world, Console(quiet=True), lambda: False), log


def another_teacher(settings: TrainConfig) -> MultiCropWrapper:
    """Not the untrained network of `settings`."""
    return initial_network(dataclasses.replace(settings, seed=1))


def test_teacher_and_random_numbers_are_left_alone(picture_folder: Path, tmp_path: Path) -> None:
    settings = config(picture_folder, tmp_path, epochs=1)
    teacher = another_teacher(settings)
    next(teacher.backbone.children()).eval()
    before = states(), [part.training for part in teacher.modules()]
    content = {key: value.clone() for key, value in teacher.state_dict().items()}
    over, log = watch(settings, tmp_path)
    over.begin(log, Position(), teacher.backbone)
    over.after(0, log, teacher.backbone)
    assert (states(), [part.training for part in teacher.modules()]) == before
    assert all(torch.equal(content[key], value) for key, value in teacher.state_dict().items())
    assert over.known.learnt is not None
    expected = extract_features(
        teacher.backbone, FolderSource(picture_folder), image_size=settings.global_size, batch_size=4, num_workers=0
    )
    assert torch.equal(over.known.learnt[0].features, expected.features)


@pytest.mark.parametrize("batch", [0, 3, 7])
def test_a_stop_while_it_measures_loses_nothing(
    finished: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Before the first epoch, after it, and after the last one, three batches each."""
    no_report(monkeypatch)
    with monkeypatch.context() as patch:
        forward_passes(patch, lambda call: os.kill(os.getpid(), signal.SIGTERM) if call == batch else None)
        with pytest.raises(KeyboardInterrupt):
            train(config(picture_folder, tmp_path))
    assert torch.load(tmp_path / "checkpoint.pth")["epoch"] == batch // 3
    train(config(picture_folder, tmp_path))
    assert_same_weights(finished, tmp_path)
    assert timeless(tmp_path) == timeless(finished)


def test_a_measurement_that_fails_is_said_and_left_out(
    finished: Path,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(call: int) -> None:
        if call >= 4:
            raise RuntimeError("no room [here]\nand a long story")

    no_report(monkeypatch)
    forward_passes(monkeypatch, fail)
    train(config(picture_folder, tmp_path))
    assert_same_weights(finished, tmp_path)
    assert ["knn_top1" in line for line in read_log(tmp_path / "log.txt")] == [False, False]
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("note: nearest neighbours were not measured: no room [here]") == 2
    assert "story" not in said


def test_a_fall_is_said_once_while_there_is_time(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = iter([50.0, 100.0, 50.0, 50.0])
    no_report(monkeypatch)
    monkeypatch.setattr(module, "top1", lambda by_k: next(shares))
    train(config(picture_folder, tmp_path, epochs=3))
    said = " ".join(capsys.readouterr().out.split())
    assert "epoch 1/3: nearest neighbours name the right class for 100.0 % of the pictures (before training 50" in said
    assert said.count("note: It was better before: after epoch 0") == 1
    assert said.index("note: It was better") < said.index("epoch 3/3")


def test_pictures_without_classes_are_not_measured(picture_folder: Path, tmp_path: Path) -> None:
    settings = config(picture_folder / "a", tmp_path, epochs=1)
    result = train(settings)
    assert not any("knn" in key for key in result.log[0])


def test_other_classes_are_noticed_at_once(picture_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="other class folders"):
        train(config(picture_folder, tmp_path), held_out=FolderSource(picture_folder / "a"))
    assert read_log(tmp_path / "log.txt") == []


def shared(world: World, settings: TrainConfig, output: Path, failing_rank: int) -> tuple[dict[str, Any], Any]:
    """Line and features of an epoch that several processes have measured; with --fsdp of a split teacher."""
    if world.rank == failing_rank:
        module.features_of = None  # type: ignore[assignment]
    student, teacher = another_teacher(settings), another_teacher(settings)
    if settings.fsdp:
        shard(student, teacher, world)
    over, log = watch(settings, output, world)
    over.begin(log, Position(), teacher.backbone)
    over.after(0, log, teacher.backbone)
    return log.lines[0], None if over.known.learnt is None else over.known.learnt[0].features.numpy()


@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_share_the_work(picture_folder: Path, tmp_path: Path, fsdp: bool) -> None:
    settings = config(picture_folder, tmp_path, epochs=1, arch="vit_tiny", fsdp=fsdp)
    alone, features = shared(ALONE, dataclasses.replace(settings, fsdp=False), tmp_path, -1)
    assert alone.keys() == {"epoch", "knn_top1", "knn_top1_random_init"}
    for line, of_rank in in_ranks(2, shared, settings, tmp_path, -1):
        assert line == alone
        # Products of these sizes, in float32, by another number of threads.
        np.testing.assert_allclose(of_rank, features, rtol=1e-4, atol=1e-5)


def test_one_process_that_fails_leaves_the_others_running(picture_folder: Path, tmp_path: Path) -> None:
    settings = config(picture_folder, tmp_path, epochs=1)
    assert in_ranks(2, shared, settings, tmp_path, 1) == [({"epoch": 0}, None)] * 2
