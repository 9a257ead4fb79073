"""What a run says about itself before its first step."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from rich.console import Console

from fastdino import native
from fastdino.config import TrainConfig
from fastdino.cores import usable_cores
from fastdino.data.loader import MultiCropLoader
from fastdino.train.build import Schedules
from fastdino.train.choices import attention_in_words, why_narrow
from fastdino.train.step import Trainee


def announce(
    console: Console,
    config: TrainConfig,
    trainee: Trainee,
    schedules: Schedules,
    loader: MultiCropLoader,
    choices: str,
    going_on: str,
) -> None:
    """One line on what is trained, on what and by what, after notes on what could be faster.

    `choices` says what computes, `going_on` after what, or nothing for a new run.
    """
    device = trainee.precision.device
    narrow = why_narrow(config, trainee.precision.name, device)
    if narrow:
        console.print(f"[yellow]note:[/] {narrow}", highlight=False, soft_wrap=True)
    if not native.available():
        console.print(f"[yellow]note:[/] {native.why_not()}", highlight=False, soft_wrap=True)
    parameters = sum(p.numel() for p in trainee.student.backbone.parameters()) / 1e6
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({usable_cores()} cores)"
    world = trainee.world
    if world.size > 1:
        machine += f" in each of {world.size} processes"
    console.print(
        f"{config.arch} ({parameters:.1f} M parameters) on {len(loader.source):,} pictures, {machine}, "
        f"{trainee.precision.name}, {schedules.steps_per_epoch} steps of {config.batch_size * world.size} "
        f"pictures an epoch{going_on}; crops by {loader.implementation}, {choices}"
        f"{attention_in_words(trainee.student.backbone, trainee.precision)}",
        highlight=False,
        soft_wrap=True,
    )


def note_changed_settings(console: Console, config: TrainConfig, saved: Path) -> None:
    """Going on with other settings than those in the file `saved` is allowed, but never by accident."""
    try:
        before = dict(json.loads(saved.read_text()))
    except (OSError, ValueError, TypeError):
        # Without readable settings of ours there is nothing to compare with.
        return
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    changes = [
        f"--{name} was {before[name]} and is {value}"
        for name, value in now.items()
        if name in before and before[name] != value and name != "output_dir"
    ]
    if changes:
        console.print(f"[yellow]note:[/] this run went on with other settings: {'; '.join(changes)}", soft_wrap=True)
