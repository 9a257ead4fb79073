"""Settings that cannot work are refused in one sentence before anything is built or written."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from fastdino.config import TrainConfig
from fastdino.errors import UserError
from fastdino.models.backbones import VISION_TRANSFORMERS, canonical_arch

POSITIVE = (
    "patch_size",
    "head_hidden_dim",
    "batch_size_per_gpu",
    "epochs",
    "accumulation_steps",
    "keep_checkpoints",
    "gpus",
    "dist_timeout",
    "global_size",
    "local_size",
    "warmup_teacher_temp",
    "teacher_temp",
)
NOT_NEGATIVE = (
    "warmup_teacher_temp_epochs",
    "weight_decay",
    "weight_decay_end",
    "clip_grad",
    "freeze_last_layer",
    "lr",
    "warmup_epochs",
    "min_lr",
    "local_crops_number",
    "saveckp_freq",
    "save_minutes",
    "save_steps",
    "num_workers",
    "seed",
)


def validated(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """`config` as it can run, and a sentence for everything that was changed to make it so.

    Raises UserError for a value that cannot work.
    """
    config = _with_declared_types(config)
    _check_values(config)
    _check_crops(config)
    return _fitted_warmups(config)


def _with_declared_types(config: TrainConfig) -> TrainConfig:
    """Lists as tuples and whole numbers as floats where floats are declared: what JSON or a caller may bring."""
    hints = typing.get_type_hints(TrainConfig)

    def convert(name: str, value: Any) -> Any:
        if typing.get_origin(hints[name]) is tuple:
            return tuple(float(item) for item in value)
        return float(value) if hints[name] is float else value

    return dataclasses.replace(
        config, **{name: convert(name, value) for name, value in dataclasses.asdict(config).items()}
    )


def _check_values(config: TrainConfig) -> None:
    for name in POSITIVE:
        if not getattr(config, name) > 0:
            raise UserError(f"--{name} must be above 0, not {getattr(config, name)}")
    for name in NOT_NEGATIVE:
        if not getattr(config, name) >= 0:
            raise UserError(f"--{name} must not be negative, and is {getattr(config, name)}")
    if config.seed >= 2**63:
        raise UserError(f"--seed must be below 2**63, not {config.seed}")
    if config.out_dim < 2:
        raise UserError(
            f"--out_dim must be at least 2, not {config.out_dim}: with one prototype there is nothing to tell apart"
        )
    if not 0 <= config.momentum_teacher <= 1:
        raise UserError(f"--momentum_teacher must lie between 0 and 1, not {config.momentum_teacher}")
    if not 0 <= config.drop_path_rate < 1:
        raise UserError(f"--drop_path_rate must lie between 0 and below 1, not {config.drop_path_rate}")
    for field in dataclasses.fields(config):
        choices = field.metadata["choices"]
        if choices and getattr(config, field.name) not in choices:
            raise UserError(f"--{field.name} must be one of {', '.join(choices)}, not {getattr(config, field.name)!r}")


def _check_crops(config: TrainConfig) -> None:
    for name in ("global_crops_scale", "local_crops_scale"):
        low, high = getattr(config, name)
        if not 0 < low <= high <= 1:
            raise UserError(f"--{name} must be two shares of the picture with 0 < low <= high <= 1, not {low} {high}")
    if min(config.color_jitter) < 0 or config.color_jitter[3] > 0.5:
        raise UserError("--color_jitter takes four strengths, none negative and the hue's at most 0.5")
    if canonical_arch(config.arch) not in VISION_TRANSFORMERS:
        return
    sizes = [("global_size", config.global_size)]
    if config.local_crops_number:
        sizes.append(("local_size", config.local_size))
    for name, size in sizes:
        if size % config.patch_size:
            below = size // config.patch_size * config.patch_size
            near = f"{below} or {below + config.patch_size}" if below else f"{config.patch_size}"
            raise UserError(f"--{name} {size} is not a multiple of --patch_size {config.patch_size}: take {near}")


def _fitted_warmups(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    notes = []
    if config.warmup_epochs > config.epochs:
        # The original's default is a tenth of its epochs.
        shortened = min(max(1, config.epochs // 10), config.epochs - 1)
        notes.append(
            f"--warmup_epochs {config.warmup_epochs} is longer than the {config.epochs} epochs: "
            f"shortened to {shortened}"
        )
        config = dataclasses.replace(config, warmup_epochs=shortened)
    if config.warmup_teacher_temp_epochs > config.epochs:
        notes.append(
            f"--warmup_teacher_temp_epochs {config.warmup_teacher_temp_epochs} is longer than the {config.epochs} "
            f"epochs: shortened to {config.epochs}"
        )
        config = dataclasses.replace(config, warmup_teacher_temp_epochs=config.epochs)
    return config, notes
