from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdino import DINOHead, DINOLoss, MultiCropWrapper, VisionTransformer
from fastdino.errors import UserError
from fastdino.models.backbones import build_backbone
from fastdino.models.weights import read_weights
from fastdino.optim import build_optimizer
from fastdino.train.checkpoint import load_checkpoint, save_checkpoint
from fastdino.train.position import Position
from fastdino.train.precision import Precision
from fastdino.train.step import StepValues, Trainee, train_step

CPU = torch.device("cpu")


def make_trainee(seed: int = 0, optimizer: str = "adamw", norm_last_layer: bool = True, width: int = 48) -> Trainee:
    """The shapes of the golden checkpoint."""
    torch.manual_seed(seed)

    def network(norm: bool) -> MultiCropWrapper:
        backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=width, depth=2, num_heads=3)
        return MultiCropWrapper(backbone, DINOHead(width, 256, False, norm, hidden_dim=64, bottleneck_dim=32))

    student, teacher = network(norm_last_layer), network(True).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    loss = DINOLoss(256, 5, 0.04, 0.07, 2, 10)
    return Trainee(student, teacher, loss, build_optimizer(optimizer, student), Precision("fp32", CPU))


def crops(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, size, size, generator=generator) for size in (32, 32, 16, 16, 16)]


def step(trainee: Trainee, seed: int, epoch: int = 3) -> float:
    return train_step(trainee, [crops(seed)], StepValues(epoch, 1e-3, 0.1, 0.9), 0.3, 1).loss.item()


def assert_same(first: Trainee, second: Trainee) -> None:
    for name in ("student", "teacher", "dino_loss"):
        states = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        for key, value in states[0].items():
            assert torch.equal(value, states[1][key]), f"{name} {key}"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    straight, resumed = make_trainee(optimizer=optimizer), make_trainee(seed=1, optimizer=optimizer)
    step(straight, 0)
    save_checkpoint(tmp_path / "checkpoint.pth", straight, Position(4), {"arch": "vit"})
    assert load_checkpoint(tmp_path / "checkpoint.pth", resumed).epoch == 4
    assert step(straight, 1) == step(resumed, 1)
    assert_same(straight, resumed)


def test_the_originals_checkpoint_goes_on(golden_checkpoint: Path) -> None:
    trainee = make_trainee()
    assert load_checkpoint(golden_checkpoint, trainee).epoch == 3
    content = read_weights(golden_checkpoint)
    assert torch.equal(trainee.student.head.last_layer.weight_v, content["student"]["module.head.last_layer.weight_v"])
    assert torch.equal(trainee.dino_loss.center, content["dino_loss"]["center"])
    first = trainee.optimizer.state[trainee.student.backbone.cls_token]
    assert torch.equal(first["exp_avg"], content["optimizer"]["state"][0]["exp_avg"])
    assert first["step"].item() == 12
    assert step(trainee, 0) > 0


def test_ours_has_the_originals_keys_shapes_and_numbering(golden_checkpoint: Path, tmp_path: Path) -> None:
    trainee = make_trainee()
    step(trainee, 0)
    save_checkpoint(tmp_path / "checkpoint.pth", trainee, Position(3), {"arch": "vit"})
    # Plain torch.load, as the original's scripts and anybody else's call it.
    ours, theirs = torch.load(tmp_path / "checkpoint.pth"), read_weights(golden_checkpoint)
    assert ours.keys() == theirs.keys() | {"fastdino"}
    for name in ("student", "teacher", "dino_loss"):
        shapes = [{key: value.shape for key, value in content[name].items()} for content in (ours, theirs)]
        assert shapes[0] == shapes[1]
        assert list(shapes[0]) == list(shapes[1])
    assert [g["params"] for g in ours["optimizer"]["param_groups"]] == [
        g["params"] for g in theirs["optimizer"]["param_groups"]
    ]
    moments = [
        {index: (state.keys(), state["exp_avg"].shape) for index, state in content["optimizer"]["state"].items()}
        for content in (ours, theirs)
    ]
    assert moments[0] == moments[1]


def test_teacher_with_batchnorm_carries_the_prefix_of_the_originals(tmp_path: Path) -> None:
    def network() -> MultiCropWrapper:
        return MultiCropWrapper(build_backbone("resnet18"), DINOHead(512, 16))

    student, teacher = network(), network().requires_grad_(False)
    trainee = Trainee(
        student,
        teacher,
        DINOLoss(16, 2, 0.04, 0.04, 0, 1),
        build_optimizer("sgd", student),
        Precision("fp32", CPU),
    )
    save_checkpoint(tmp_path / "checkpoint.pth", trainee, Position(1), {})
    assert all(key.startswith("module.") for key in torch.load(tmp_path / "checkpoint.pth")["teacher"])
    assert load_checkpoint(tmp_path / "checkpoint.pth", trainee).epoch == 1


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"width": 96},
            r"student in .* does not fit .*cls_token \(1, 1, 48\) where the model has \(1, 1, 96\)",
        ),
        ({"optimizer": "lars"}, "optimizer in .* is not this run's"),
        ({"norm_last_layer": False}, "optimizer in .* is not this run's"),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_changes(tmp_path: Path, other: dict[str, Any], sentence: str) -> None:
    trainee = make_trainee()
    step(trainee, 0)
    save_checkpoint(tmp_path / "checkpoint.pth", trainee, Position(1), {})
    target, untouched = make_trainee(seed=1, **other), make_trainee(seed=1, **other)
    with pytest.raises(UserError, match=sentence):
        load_checkpoint(tmp_path / "checkpoint.pth", target)
    assert_same(target, untouched)


def test_backbone_alone_is_no_training_checkpoint(tmp_path: Path) -> None:
    torch.save(make_trainee().student.backbone.state_dict(), tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match="it lacks student, teacher, optimizer"):
        load_checkpoint(tmp_path / "checkpoint.pth", make_trainee())


@pytest.mark.parametrize("allowed", [0, 4096, 200_000])
def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path: Path, allowed: int) -> None:
    """A real limit of the operating system, met at the first byte, in the header and among the tensors."""
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, make_trainee(), Position(1), {})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(path, make_trainee(), Position(2), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.pth"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, make_trainee(), Position(1), {})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, make_trainee(), Position(2), {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.pth"]
