"""Whole runs in several processes: the same as in one, written once, and going on in another number of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino import TrainConfig, train
from fastdino.distributed.world import ALONE, World
from fastdino.errors import UserError
from fastdino.train.build import build_trainee
from fastdino.train.loop import seed_step
from tests.fastdino.distributed.processes import in_processes

GLOBAL_BATCH = 8


def config(data: Path, output: Path, ranks: int = 1, **changes: Any) -> TrainConfig:
    """Three steps an epoch, whatever the number of processes."""
    small = TrainConfig(
        arch="test_vit",
        out_dim=64,
        head_hidden_dim=32,
        global_size=32,
        local_size=16,
        local_crops_number=1,
        batch_size_per_gpu=GLOBAL_BATCH // ranks,
        epochs=2,
        warmup_epochs=0,
        warmup_teacher_temp=0.1,
        teacher_temp=0.1,
        drop_path_rate=0.0,
        saveckp_freq=1,
        num_workers=1,
        data_path=str(data),
        output_dir=str(output),
    )
    return dataclasses.replace(small, **changes)


def trained(settings: TrainConfig) -> list[str]:
    """What the process printed nowhere else: its result's files."""
    result = train(settings)
    return sorted(path.name for path in result.output_dir.iterdir())


def in_ranks_trained(ranks: int, settings: TrainConfig) -> None:
    meeting_place = f"file://{Path(settings.output_dir).parent / f'meeting_{Path(settings.output_dir).name}'}"
    in_processes(ranks, trained, dataclasses.replace(settings, dist_url=meeting_place))


def losses(output: Path) -> list[float]:
    return [json.loads(line)["train_loss"] for line in (output / "log.txt").read_text().splitlines()]


def assert_same_run(output: Path, other: Path) -> None:
    """To 1e-5 in the losses; weights to what AdamW makes of other orders of adding up.

    Where a gradient is rounding alone, AdamW makes whole steps of it, whose sizes are the learning rates: all of them
    together are the most that a weight can differ by.
    """
    assert losses(output) == pytest.approx(losses(other), rel=1e-5)
    ours, theirs = (torch.load(run / "checkpoint.pth") for run in (output, other))
    rates = [json.loads(line)["train_lr"] for line in (other / "log.txt").read_text().splitlines()]
    for network in ("student", "teacher"):
        difference = [(ours[network][key] - x).abs().flatten() for key, x in theirs[network].items()]
        assert torch.cat(difference).max() < 2 * 3 * sum(rates)
        assert torch.cat(difference).mean() < 1e-6


def leave_first_epoch(finished: Path, output: Path) -> None:
    """What a run has written when its first epoch is done."""
    output.mkdir()
    (output / "checkpoint.pth").write_bytes((finished / "checkpoint0000.pth").read_bytes())
    (output / "log.txt").write_text((finished / "log.txt").read_text().splitlines(keepends=True)[0])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 pictures, 2 of which are left over in each epoch, and a damaged one."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(25):
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / f"{index}.png")
    (root / "damaged.png").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone")
    train(config(pictures, output))
    return output


def test_four_ranks_train_as_one_process_and_others_go_on(alone: Path, pictures: Path, tmp_path: Path) -> None:
    four = tmp_path / "four"
    in_ranks_trained(4, config(pictures, four, 4))
    assert_same_run(four, alone)
    for name in ("skipped.txt", "report.html", "config.json", "checkpoint0000.pth"):
        assert (four / name).is_file()
    assert (four / "skipped.txt").read_text() == (alone / "skipped.txt").read_text()
    for ranks in (2, 1):
        output = tmp_path / f"then_{ranks}"
        leave_first_epoch(four, output)
        settings = config(pictures, output, ranks)
        in_ranks_trained(ranks, settings) if ranks > 1 else train(settings)
        assert_same_run(output, alone)


def test_split_networks_train_as_whole_ones_and_go_on_from_them(alone: Path, pictures: Path, tmp_path: Path) -> None:
    from_start, going_on = tmp_path / "from_start", tmp_path / "going_on"
    leave_first_epoch(alone, going_on)
    for output in (from_start, going_on):
        in_ranks_trained(2, config(pictures, output, 2, fsdp=True))
        assert_same_run(output, alone)
        assert (output / "report.html").is_file()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "there is one"),
        ({"implementation": "triton"}, "by PyTorch"),
        ({"optimizer": "lars"}, "adamw or sgd"),
        ({"precision": "fp16"}, "bf16 or fp32"),
    ],
)
def test_what_split_networks_cannot_do(changes: dict[str, Any], sentence: str) -> None:
    settings = config(Path("pictures"), Path("output"), fsdp=True, **changes)
    with pytest.raises(UserError, match=sentence):
        build_trainee(settings, torch.device("cpu"), World(0, 2) if changes else ALONE)


def test_each_rank_drops_its_own_blocks() -> None:
    drawn = []
    for rank in (0, 0, 1):
        seed_step(7, 3, rank)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
