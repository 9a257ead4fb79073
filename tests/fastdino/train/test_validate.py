from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fastdino import TrainConfig
from fastdino.errors import UserError
from fastdino.train.validate import validated


def test_defaults_are_valid_and_unchanged() -> None:
    assert validated(TrainConfig()) == (TrainConfig(), [])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "--epochs must be above 0"),
        ({"batch_size_per_gpu": -1}, "--batch_size_per_gpu must be above 0"),
        ({"lr": -0.1}, "--lr must not be negative"),
        ({"lr": float("nan")}, "--lr must not be negative"),
        ({"teacher_temp": 0.0}, "--teacher_temp must be above 0"),
        ({"out_dim": 1}, "--out_dim must be at least 2"),
        ({"momentum_teacher": 1.1}, "--momentum_teacher must lie between 0 and 1"),
        ({"drop_path_rate": 1.0}, "--drop_path_rate must lie"),
        ({"global_crops_scale": (0.5, 0.4)}, "--global_crops_scale must be two shares"),
        ({"local_crops_scale": (0.0, 0.4)}, "--local_crops_scale must be two shares"),
        ({"color_jitter": (0.4, 0.4, 0.2, 0.6)}, "--color_jitter"),
        ({"local_size": 100}, "--local_size 100 is not a multiple of --patch_size 16: take 96 or 112"),
        ({"global_size": 8}, "--global_size 8 is not a multiple of --patch_size 16: take 16"),
        ({"arch": "vit_smal"}, "did you mean vit_small"),
        ({"precision": "fp8"}, "--precision must be one of auto, fp32, bf16, fp16"),
        ({"optimizer": "adam"}, "--optimizer must be one of"),
    ],
)
def test_values_that_cannot_work(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        validated(dataclasses.replace(TrainConfig(), **changes))
    assert sentence in str(error.value)


def test_local_size_does_not_matter_without_local_crops() -> None:
    validated(TrainConfig(local_size=100, local_crops_number=0))


def test_patches_do_not_matter_to_convnets() -> None:
    validated(TrainConfig(arch="resnet18", local_size=100))


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (2, 1), (5, 1), (9, 1), (10, 10), (100, 10)])
def test_warm_up_is_shortened_with_a_note(epochs: int, warmup: int) -> None:
    config, notes = validated(TrainConfig(epochs=epochs))
    assert config.warmup_epochs == warmup
    assert len(notes) == (epochs < 10)


def test_temperature_warm_up_is_shortened_with_a_note() -> None:
    config, notes = validated(TrainConfig(epochs=20, warmup_teacher_temp_epochs=30))
    assert config.warmup_teacher_temp_epochs == 20
    assert "--warmup_teacher_temp_epochs 30" in notes[0]


def test_lists_as_json_brings_them() -> None:
    config, _ = validated(TrainConfig(global_crops_scale=[0.4, 1], lr=1))
    assert config.global_crops_scale == (0.4, 1.0)
    assert isinstance(config.lr, float)
