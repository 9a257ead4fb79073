from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fastdino import TrainConfig, cli
from fastdino.errors import UserError
from fastdino.plan.meter import MemoryMeter
from fastdino.plan.pick import pick
from fastdino.plan.predict import measure_step, predict_step
from fastdino.plan.run import command_line

SMALL = TrainConfig(
    arch="vit_tiny",
    patch_size=16,
    global_size=32,
    local_size=16,
    local_crops_number=2,
    batch_size_per_gpu=2,
    out_dim=512,
    head_hidden_dim=64,
    drop_path_rate=0.0,
)


def test_the_meter_follows_storages_not_tensors() -> None:
    with MemoryMeter(lambda tensor: str(tensor.ndim)) as meter:
        first = torch.zeros(256)
        view = first.view(16, 16)[1:]
        second = first + 1
        assert meter.live == 2048
        del first, second
        assert (meter.live, meter.peak) == (1024, 2048)
        meter.recategorise(view, "kept")
        assert meter.at_peak() == {"kept": 1024, "1": 1024}
        del view
        assert meter.live == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpointing": "attention"},
        {"checkpointing": "block", "accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_step_without_memory_takes_what_a_step_takes(changes: dict[str, object]) -> None:
    config = dataclasses.replace(SMALL, **changes)
    assert predict_step(config) == measure_step(config)


def test_so_does_one_of_convolutions() -> None:
    config = dataclasses.replace(SMALL, arch="resnet_small", optimizer="sgd")
    predicted, measured = predict_step(config), measure_step(config)
    for step in (predicted, measured):
        # A gradient that lies otherwise than its weights is copied; which of them do, only convolutions that run tell.
        step.categories["gradients"] += step.categories.pop("temporaries")
    assert predicted == measured


def test_a_large_network_is_predicted_without_its_memory() -> None:
    step = predict_step(dataclasses.replace(SMALL, arch="resnet_small", head_hidden_dim=10**5))
    # Of the second of the head's three products alone; two moments.
    assert step.categories["student"] > 4 * 10**10 and step.categories["moments"] > 8 * 10**10


def picked(config: TrainConfig, room: int) -> tuple[TrainConfig | None, int]:
    """With a made law: 10 bytes, and a picture takes 12, 8 or 4."""

    def peak(config: TrainConfig) -> int:
        if config.arch == "resnet50" and config.batch_size_per_gpu == 1:
            raise UserError("BatchNorm")
        a_picture = {"none": 12, "attention": 8, "block": 4}[config.checkpointing]
        return 10 + a_picture * config.batch_size_per_gpu

    return pick(config, peak(config), room, peak)


@pytest.mark.parametrize(
    ("room", "pictures", "batches", "checkpointing", "peak"),
    [
        (106, 8, 1, "none", 106),
        (105, 8, 1, "attention", 74),
        (73, 8, 1, "block", 42),
        (41, 4, 2, "block", 26),
        (22, 2, 4, "block", 18),
        (14, 1, 8, "block", 14),
    ],
)
def test_the_fastest_that_fits_is_picked(room: int, pictures: int, batches: int, checkpointing: str, peak: int) -> None:
    expected = dataclasses.replace(
        SMALL, batch_size_per_gpu=pictures, accumulation_steps=batches, checkpointing=checkpointing
    )
    assert picked(dataclasses.replace(SMALL, batch_size_per_gpu=8), room) == (expected, peak)


def test_nothing_fits() -> None:
    assert picked(SMALL, 13) == (None, 14)
    assert picked(dataclasses.replace(SMALL, arch="resnet50"), 33) == (None, 34)


def test_micro_batches_divide_the_pictures_of_a_step() -> None:
    config, _ = picked(dataclasses.replace(SMALL, batch_size_per_gpu=9, checkpointing="block"), 30)
    assert config is not None
    assert (config.batch_size_per_gpu, config.accumulation_steps) == (3, 3)


QUICK = dataclasses.replace(SMALL, arch="resnet_small", batch_size_per_gpu=3)
FLAGS = ["plan", *command_line(QUICK).split()[2:]]


def test_the_command_exits_with_0_if_the_run_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FLAGS, "--memory", "1000"]) == 0
    printed = capsys.readouterr().out
    assert "fits into 1000.00 GiB" in printed and command_line(QUICK) in printed


def test_the_command_exits_with_1_and_says_what_is_least(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FLAGS, "--memory", "0.001", "--json"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert not report["fits"] and report["chosen"] is None and "Nothing fits" in report["advice"]
    assert report["peak"] == sum(report["bytes"].values())
    assert "this run takes" in captured.err


def test_memory_must_be_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FLAGS, "--memory", "0"]) == 2
    assert "--memory must be above 0" in capsys.readouterr().err
