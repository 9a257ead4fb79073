"""Multi-tensor parts of the step against the plain loops: equal first, then timed in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from fastdino import DINOHead, MultiCropWrapper, update_teacher, vit_tiny
from fastdino.optim import clip_gradients

IMPLEMENTATIONS = ("auto", "reference")


@pytest.fixture(scope="module")
def networks() -> Callable[[], tuple[nn.Module, nn.Module]]:
    """Builds equal pairs of a student with gradients and a teacher with other weights."""

    def build() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        student, teacher = (MultiCropWrapper(vit_tiny(), DINOHead(192, 4096)) for _ in range(2))
        for parameter in student.parameters():
            parameter.grad = torch.randn_like(parameter)
        return student, teacher

    return build


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.benchmark(group="teacher update")
def test_update_teacher(
    networks: Callable[[], tuple[nn.Module, nn.Module]], implementation: str, benchmark: BenchmarkFixture
) -> None:
    results = []
    for each in IMPLEMENTATIONS:
        student, teacher = networks()
        update_teacher(teacher, student, 0.9, each)
        results.append(torch.cat([p.detach().flatten() for p in teacher.parameters()]))
    # One or two float32 roundings of values below 4.
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)
    benchmark(update_teacher, teacher, student, 0.996, implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.benchmark(group="gradient clipping")
def test_clip_gradients(
    networks: Callable[[], tuple[nn.Module, nn.Module]], implementation: str, benchmark: BenchmarkFixture
) -> None:
    results = []
    for each in IMPLEMENTATIONS:
        student, _ = networks()
        clip_gradients(student, 1.0, each)
        results.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=0)
    benchmark(clip_gradients, student, 1.0, implementation)
