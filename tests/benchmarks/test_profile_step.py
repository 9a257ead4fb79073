from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import record_function

from benchmarks import profile_step
from benchmarks.profile_step import RANGES, VALUES, name_ranges
from fastdino import TrainConfig
from fastdino.train.build import build_trainee
from fastdino.train.step import train_step


def test_ranges_change_nothing() -> None:
    config = TrainConfig(
        arch="vit_tiny", patch_size=8, out_dim=32, head_hidden_dim=8, local_crops_number=1, drop_path_rate=0.0
    )
    losses = []
    for named in (False, True):
        trainee = build_trainee(config, torch.device("cpu"))
        if named:
            name_ranges(trainee, record_function)
        crops = [torch.linspace(-1, 1, 2 * 3 * side * side).view(2, 3, side, side) for side in (16, 16, 8)]
        losses.append([train_step(trainee, [crops], VALUES, 3.0, 1).loss.item() for _ in range(2)])
    assert losses[0] == losses[1]


def test_a_profile_on_a_cpu_has_every_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--arch", "resnet_small", "--images", "2", "--out_dim", "32", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["profile_step.py", *flags, "--output_dir", str(tmp_path)])
    profile_step.main()
    said = capsys.readouterr().out
    assert all(f"| {name} |" in said for name in RANGES)
    names = {event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]}
    assert set(RANGES) <= names
