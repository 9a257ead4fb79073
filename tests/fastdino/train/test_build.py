from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from fastdino import TrainConfig
from fastdino.errors import UserError
from fastdino.train.build import build_schedules, build_trainee

CPU = torch.device("cpu")


def small(**changes: object) -> TrainConfig:
    config = TrainConfig(arch="vit_tiny", patch_size=8, global_size=16, local_size=8, out_dim=32, head_hidden_dim=16)
    return dataclasses.replace(config, **changes)


def test_student_and_teacher_start_equal_and_only_the_student_learns() -> None:
    trainee = build_trainee(small(norm_last_layer=False), CPU)
    student, teacher = trainee.student.state_dict(), trainee.teacher.state_dict()
    assert student.keys() == teacher.keys()
    assert all(torch.equal(student[key], teacher[key]) for key in student)
    assert not any(parameter.requires_grad for parameter in trainee.teacher.parameters())
    assert trainee.student.head.last_layer.weight_g.requires_grad


def test_stochastic_depth_is_the_students_alone() -> None:
    trainee = build_trainee(small(drop_path_rate=0.2), CPU)
    assert trainee.student.backbone.blocks[-1].drop_path.rate == pytest.approx(0.2)
    assert trainee.teacher.backbone.blocks[-1].drop_path.rate == 0


@pytest.mark.parametrize("arch", ["mobilenet_v2", "efficientnet_b0"])
def test_the_teacher_answers_alike_twice(arch: str) -> None:
    """torchvision's models bring dropout and stochastic depth of their own."""
    teacher = build_trainee(TrainConfig(arch=arch, local_crops_number=0, out_dim=32, head_hidden_dim=16), CPU).teacher
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(teacher(x), teacher(x))


def test_batchnorm_needs_two_pictures() -> None:
    with pytest.raises(UserError, match="at least 2"):
        build_trainee(TrainConfig(arch="resnet_small", batch_size_per_gpu=1, head_hidden_dim=16, out_dim=32), CPU)


def test_the_seed_decides_the_weights() -> None:
    first, same, other = (build_trainee(small(seed=seed), CPU).student.backbone.cls_token for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_learning_rate_scales_with_the_pictures_of_a_step() -> None:
    config = small(batch_size_per_gpu=64, accumulation_steps=2, epochs=20)
    schedules = build_schedules(config, steps_per_epoch=5)
    assert max(schedules.lr) == pytest.approx(config.lr * 128 / 256)
    assert len(schedules.lr) == len(schedules.momentum) == 100
    first, last = schedules.at(0), schedules.at(99)
    assert first == pytest.approx((0, 0.0, config.weight_decay, config.momentum_teacher), rel=1e-12)
    assert last.epoch == 19
    # The cosine's value one step before its end: 1 - cos(pi / n) of half the range.
    assert last.momentum == pytest.approx(1, abs=1e-4)
    assert all(type(value) in (int, float) for value in last)


def test_checkpointing_is_for_the_students_blocks() -> None:
    trainee = build_trainee(small(checkpointing="block"), torch.device("cpu"))
    assert trainee.student.backbone.checkpointing == "block"
    assert trainee.teacher.backbone.checkpointing == "none"
    with pytest.raises(UserError, match=r"--checkpointing block is for vit_\*, not resnet_small"):
        build_trainee(small(arch="resnet_small", checkpointing="block"), torch.device("cpu"))


def test_our_own_networks_need_no_other_library() -> None:
    """torchvision and timm take a while and memory to import."""
    code = (
        "import sys, torch, fastdino.train.run\n"
        "from fastdino import TrainConfig\n"
        "from fastdino.train.build import build_trainee\n"
        "build_trainee(TrainConfig(arch='vit_tiny', out_dim=8), torch.device('cpu'))\n"
        "print(sorted({'torchvision', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compile_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--compile is for vit_\\*, not resnet_small: leave it out"):
        build_trainee(small(arch="resnet_small", compile=True), CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler, and no-such-compiler is not there: install g\\+\\+"):
        build_trainee(small(compile=True), CPU)
