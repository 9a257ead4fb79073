"""The settings of the commands that look at pictures, without a network."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastdino.config.fields import OTHER, option, positional, switch
from fastdino.config.training import TrainConfig


def _as_in_train(name: str) -> Any:
    field = TrainConfig.__dataclass_fields__[name]
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclasses.dataclass(frozen=True)
class CropsConfig:
    """What crops are drawn from, with the flags of `fastdino train`."""

    global_crops_scale: tuple[float, float] = _as_in_train("global_crops_scale")
    local_crops_number: int = _as_in_train("local_crops_number")
    local_crops_scale: tuple[float, float] = _as_in_train("local_crops_scale")
    global_size: int = _as_in_train("global_size")
    local_size: int = _as_in_train("local_size")
    color_jitter: tuple[float, float, float, float] = _as_in_train("color_jitter")


@dataclasses.dataclass(frozen=True)
class CheckConfig(CropsConfig):
    """A data set looked through before training on it."""

    data_path: str = positional("DIR", "Folder of pictures, or tar shards.", group=OTHER)
    json: bool = switch("Print everything as JSON, for machines.", group=OTHER)
    num_workers: int = option(10, "Most threads that read pictures.", group=OTHER)


@dataclasses.dataclass(frozen=True)
class PackConfig:
    """A data set rewritten as tar shards that are quick to read."""

    data_path: str = option("", "Folder of pictures, or tar shards; stays as it is.", group=OTHER)
    output_dir: str = option("", "Folder for the shards; an interrupted run found there goes on.", group=OTHER)
    short_side: int | None = option(
        None,
        "Shrink pictures to this shorter side in pixels. Faster and smaller, but it changes the recipe: crops are cut "
        "out of fewer pixels.",
        group=OTHER,
    )
    shard_mb: int = option(512, "Largest size of a shard in megabytes.", group=OTHER)
    num_workers: int = option(10, "Most threads that read pictures.", group=OTHER)


@dataclasses.dataclass(frozen=True)
class PreviewConfig(CropsConfig):
    """The crops of one picture, drawn."""

    image_path: str = positional("IMAGE", "Picture to cut crops out of.", group=OTHER)
    output: str = option("crops.png", "PNG file to write.", group=OTHER)
    seed: int = option(0, "Seed of the crops.", group=OTHER)
    epoch: int = option(0, "Epoch whose crops are drawn; each has its own.", group=OTHER)
