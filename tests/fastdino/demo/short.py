"""The demo in seconds: few pictures, few epochs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fastdino import TrainConfig
from fastdino.demo import run as demo_run
from fastdino.demo.pictures import Split
from fastdino.demo.preset import demo_preset

TRAINED, HELD_OUT = 4, 2  # pictures of each photograph


def shorten(patch: pytest.MonkeyPatch, epochs: int) -> None:
    """Have `fastdino.demo.run` take no more than that."""

    def preset(*arguments: Any) -> TrainConfig:
        return dataclasses.replace(demo_preset(*arguments), epochs=epochs, warmup_epochs=0)

    splits = Split("train", TRAINED, 0.0, 0.5), Split("val", HELD_OUT, 0.5, 1.0)
    patch.setattr(demo_run, "demo_preset", preset)
    patch.setattr(demo_run.pictures, "SPLITS", splits)
