"""LightlyTrain's method "dino" on timm's vision transformer, with the flags' values wherever it lets one set them.

It resizes with a box filter, blurs by OpenCV, and pools timm's model in its own way.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.training_peers import RUN, Losses
from fastdino import TrainConfig, cli
from fastdino.data.plan import BLUR_PROBABILITY, BLUR_RADIUS, GRAYSCALE_PROBABILITY, SOLARIZE_PROBABILITY


def losses(folder: Path) -> Losses:
    """Those of a run of one epoch, from its metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / RUN / "metrics.jsonl").read_text().splitlines()]
    values = [line["train_loss"] for line in lines if "train_loss" in line]
    return Losses(values[0], sum(values) / len(values))


def settings(config: TrainConfig) -> dict[str, Any]:
    """The keyword arguments of lightly_train.pretrain that say what a run of ours does."""
    return {
        "out": config.output_dir,
        "data": config.data_path,
        "model": f"timm/{config.arch}_patch{config.patch_size}_224",
        "model_args": {"drop_path_rate": config.drop_path_rate},
        "method": "dino",
        "method_args": {
            "output_dim": config.out_dim,
            "hidden_dim": config.head_hidden_dim,
            "teacher_temp": config.teacher_temp,
            "warmup_teacher_temp": config.warmup_teacher_temp,
            "momentum_start": config.momentum_teacher,
            "weight_decay_end": config.weight_decay_end,
            "student_freeze_last_layer_steps": None,
            "student_freeze_last_layer_epochs": config.freeze_last_layer,
        },
        "optim": config.optimizer,
        "optim_args": {"lr": config.lr, "weight_decay": config.weight_decay},
        "transform_args": _crops(config),
        "epochs": config.epochs,
        "batch_size": config.batch_size_per_gpu,
        "num_workers": config.num_workers,
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "seed": config.seed,
        # Every step's loss; by default that of one step in fifty.
        "trainer_args": {"log_every_n_steps": 1},
    }


def _crops(config: TrainConfig) -> dict[str, Any]:
    jitter = dict(zip(("brightness", "contrast", "saturation", "hue"), config.color_jitter, strict=True))
    first, second, local = BLUR_PROBABILITY
    return {
        "image_size": (config.global_size, config.global_size),
        "random_resize": _scale(config.global_crops_scale),
        "color_jitter": {"strength": 1.0, **jitter},
        "random_gray_scale": GRAYSCALE_PROBABILITY,
        "gaussian_blur": {"prob": first, "sigmas": BLUR_RADIUS},
        "global_view_1": {
            "gaussian_blur": {"prob": second, "sigmas": BLUR_RADIUS},
            "solarize": {"prob": SOLARIZE_PROBABILITY[1], "threshold": 0.5},
        },
        "local_view": {
            "num_views": config.local_crops_number,
            "view_size": (config.local_size, config.local_size),
            "random_resize": _scale(config.local_crops_scale),
            "gaussian_blur": {"prob": local, "sigmas": BLUR_RADIUS},
        },
    }


def _scale(bounds: tuple[float, float]) -> dict[str, float]:
    return {"min_scale": bounds[0], "max_scale": bounds[1]}


def main() -> None:
    """Arguments: the file of the steps, the flags."""
    from benchmarks.training_peers.recording import record_steps

    # It reports its use to its makers otherwise.
    os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
    import lightly_train

    record_steps(sys.argv[1])
    lightly_train.pretrain(**settings(cli.parse(["train", *sys.argv[2:]])[1]))


if __name__ == "__main__":
    main()
