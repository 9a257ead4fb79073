"""The loss kernels under the probe: bytes, launches, order of programs, order of images."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_proofs.interpreter import shuffled_programs
from benchmarks.gpu_proofs.probe import Probe
from fastdino.kernels import dino_loss as module
from fastdino.kernels.dino_loss import dino_loss, dino_loss_and_gradient_
from fastdino.kernels.dino_loss_launch import Logits, groups
from tests.kernels.dino_loss_cases import Case, make_case

STATISTICS, GRADIENT = "dino_loss_statistics", "dino_loss_gradient"


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def through_autograd(case: Case, **options: bool) -> tuple[Tensor, Tensor, Tensor]:
    leaf = case.student.clone().requires_grad_()
    logits = leaf * 1.0
    loss, entropy = dino_loss(logits, *case.arguments()[1:], **options)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), entropy, leaf.grad


def at_once(case: Case, group: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    logits = case.student.clone()
    loss, entropy = dino_loss_and_gradient_(logits, *case.arguments()[1:], group=group)
    return loss, entropy, logits


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("overwrite_logits", [False, True])
@pytest.mark.parametrize("prototypes", [4096, 2999])
def test_every_logit_is_read_once_per_kernel_and_written_once(prototypes: int, overwrite_logits: bool) -> None:
    case = make_case(prototypes=prototypes, dtype=torch.bfloat16)
    with Probe() as probe:
        through_autograd(case, overwrite_logits=overwrite_logits)
    student, teacher = size(case.student), size(case.teacher)
    for kernel in (STATISTICS, GRADIENT):
        assert probe.loaded(kernel, "student_ptr") == student
        assert probe.loaded(kernel, "teacher_ptr") == teacher
        # From memory once; the other images find it in the cache.
        assert probe.traffic[kernel, "center_ptr"].unique_loaded == size(case.center)
    assert probe.stored(GRADIENT, "gradient_ptr") == student
    # What else moves are numbers per row and slice, and each image's copy of the center.
    others = probe.loaded() + probe.stored() - 3 * student - 2 * teacher - 2 * 2 * size(case.center)
    assert others < 0.02 * 3 * student


def test_the_concrete_case_moves_272_mebibytes() -> None:
    """64 images, 65,536 prototypes: 32 times the images and 16 times the prototypes of what is counted here."""
    case = make_case(images=2, ncrops=10, prototypes=4096, dtype=torch.bfloat16)
    with Probe() as probe:
        through_autograd(case, overwrite_logits=True)
    counted = sum(probe.loaded(k, p) for k in (STATISTICS, GRADIENT) for p in ("student_ptr", "teacher_ptr"))
    assert (counted + probe.stored(GRADIENT, "gradient_ptr")) * 32 * 16 == 272 * 2**20


def test_launches_do_not_grow_with_images_crops_or_prototypes() -> None:
    for case in (make_case(images=1, ncrops=2), make_case(images=3, ncrops=12, prototypes=3000)):
        with Probe() as probe:
            through_autograd(case)
        assert probe.launches.total() == 4
        with Probe() as probe:
            at_once(case)
        assert probe.launches.total() == 4


def test_twice_and_in_any_order_the_same_bits() -> None:
    case = make_case(images=3, prototypes=3000, dtype=torch.bfloat16)
    first = through_autograd(case)
    assert equal(first, through_autograd(case))
    for seed in range(3):
        with shuffled_programs(seed):
            assert equal(first, through_autograd(case))
            assert equal(first, at_once(case))


@pytest.mark.parametrize("group", [1, 2, 3, 7, None])
def test_groups_of_images_change_no_bit(group: int | None) -> None:
    case = make_case(images=5, ncrops=4, prototypes=1500)
    with Probe():
        grouped = at_once(case, group)
    assert equal(grouped, through_autograd(case))


def test_in_a_group_the_gradient_follows_its_statistics() -> None:
    """Between the two reads of an image no more than the group's logits pass through the cache."""
    case = make_case(images=5, ncrops=4, prototypes=100)
    order: list[tuple[str, int, int]] = []
    with (
        mock.patch.object(
            module, "launch_statistics", lambda _, __, first, count: order.append(("read", first, count))
        ),
        mock.patch.object(module, "launch_gradient", lambda *rest: order.append(("read again", *rest[-2:]))),
        mock.patch.object(module, "launch_totals", return_value=(None, None)),
    ):
        at_once(case, group=2)
    groups = [(0, 1), (1, 2), (3, 2)]
    assert order == [(kernel, *group) for group in groups for kernel in ("read", "read again")]


def test_a_group_fills_half_of_the_cache() -> None:
    logits = Logits(
        *(torch.empty(rows * 64, 65536, dtype=torch.bfloat16, device="meta") for rows in (10, 2)), *[torch.empty(0)] * 3
    )
    # An image has 1.5 MiB, the cache of an H100 50.
    assert list(groups(logits, 64, None)) == [(0, 16), (16, 16), (32, 16), (48, 16)]
    with mock.patch("fastdino.kernels.dino_loss_launch.cache_bytes", return_value=2**20):
        assert list(groups(logits, 64, None)) == [(image, 1) for image in range(64)]
    assert list(groups(logits, 64, 60)) == [(0, 32), (32, 32)]
