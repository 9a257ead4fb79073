"""The teacher's average over lists of tensors and in an arena: against float64, under the probe, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gpu_proofs.interpreter import shuffled_programs
from benchmarks.gpu_proofs.probe import Probe
from fastdino.kernels.arena import Arena
from fastdino.kernels.ema import ema_, ema_arena_
from tests.kernels.arena_cases import assert_rounded_to_bfloat16, expected_shadow, make_arena, modules, values

SIZES = (1, 3, 255, 4097, 1024, 2048, 640)


def tensors(sizes: Sequence[int] = SIZES, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def averaged(teacher: list[Tensor], student: list[Tensor], momentum: float | Tensor) -> list[Tensor]:
    result = [t.clone() for t in teacher]
    ema_(result, student, momentum)
    return result


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def assert_close_to_float64(actual: Tensor, teacher: Tensor, student: Tensor, momentum: float) -> None:
    """Rounding of the weight and of the difference, both times the step, and one rounding of the result."""
    unit = torch.finfo(teacher.dtype).eps / 2
    step = (1 - momentum) * (student.double() - teacher.double())
    true = teacher.double() + step
    assert ((actual.double() - true).abs() <= unit * (true.abs() + 2.01 * step.abs()) * (1 + 2 * unit)).all()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.996, 0.99999])
def test_equals_float64(momentum: float) -> None:
    teacher, student = tensors(), tensors(seed=1)
    for actual, t, s in zip(averaged(teacher, student, momentum), teacher, student, strict=True):
        assert_close_to_float64(actual, t, s, momentum)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    momentum=st.floats(0, 1),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_equals_float64_for_any_sizes(sizes: list[int], momentum: float, scale: float) -> None:
    teacher, student = tensors(sizes), [scale * s for s in tensors(sizes, seed=1)]
    with Probe() as probe:
        for i, tensor in enumerate((*teacher, *student)):
            probe.watch(f"tensor {i}", tensor)
        before = [t.clone() for t in teacher]
        ema_(teacher, student, momentum)
    for actual, t, s in zip(teacher, before, student, strict=True):
        assert_close_to_float64(actual, t, s, momentum)


def test_float64_shows_the_formula_without_rounding() -> None:
    teacher, student = tensors(dtype=torch.float64), tensors(dtype=torch.float64, seed=1)
    for actual, t, s in zip(averaged(teacher, student, 0.996), teacher, student, strict=True):
        # Both sides round a few times.
        torch.testing.assert_close(actual, 0.996 * t + 0.004 * s, rtol=0, atol=4 * 2**-53 * 5)


def test_momentum_1_and_equal_networks_change_no_bit() -> None:
    teacher, student = tensors(), tensors(seed=1)
    assert equal(averaged(teacher, student, 1.0), teacher)
    assert equal(averaged(teacher, [t.clone() for t in teacher], 0.1234), teacher)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_momentum_may_live_on_the_device(dtype: torch.dtype) -> None:
    teacher, student = tensors(), tensors(seed=1)
    momentum = torch.tensor(0.875, dtype=dtype)
    assert equal(averaged(teacher, student, momentum), averaged(teacher, student, 0.875))


def test_one_launch_of_12_bytes_a_parameter() -> None:
    teacher, student = tensors(), tensors(seed=1)
    with Probe() as probe:
        for i, (t, s) in enumerate(zip(teacher, student, strict=True)):
            probe.watch(f"teacher {i}", t)
            probe.watch(f"student {i}", s)
        ema_(teacher, student, 0.996)
    assert probe.launches == {"ema_of_lists": 1}
    of_tensors = [t for (_, name), t in probe.traffic.items() if name.startswith(("teacher", "student"))]
    assert sum(t.loaded + t.stored for t in of_tensors) == 12 * sum(SIZES)
    blocks = sum(-(-size // 1024) for size in SIZES)
    assert probe.loaded("ema_of_lists", "table_ptr") == 24 * blocks


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_tensors_may_start_anywhere(offset: int) -> None:
    teacher, student = tensors((3000,))[0][offset : offset + 2996], tensors((3000,), seed=1)[0][4 - offset :][:2996]
    result = teacher.clone()
    ema_([result], [student.clone()], 0.9)
    ema_([teacher], [student], 0.9)
    assert torch.equal(teacher, result)


def test_tensors_that_moved_are_found() -> None:
    """The table of addresses is kept; it must not outlive the addresses."""
    student = tensors(seed=1)
    for _ in range(3):
        teacher = tensors()
        kept = [t.clone() for t in teacher]
        ema_(teacher, student, 0.5)
        assert not equal(teacher, kept)
        assert equal(teacher, averaged(kept, student, 0.5))


def test_in_any_order_the_same_bits() -> None:
    teacher, student = tensors(), tensors(seed=1)
    first = averaged(teacher, student, 0.9)
    with shuffled_programs(1):
        assert equal(first, averaged(teacher, student, 0.9))


def test_parameters_are_changed_without_gradient() -> None:
    teacher = torch.nn.Parameter(torch.zeros(5))
    ema_([teacher], [torch.nn.Parameter(torch.ones(5))], 0.75)
    assert torch.equal(teacher.detach(), torch.full((5,), 0.25))
    assert teacher.is_leaf


@pytest.mark.parametrize(
    ("teacher", "student", "complaint"),
    [
        ([torch.zeros(3)], [torch.zeros(4)], "equal shapes"),
        ([torch.zeros(3)], [], "equally many"),
        ([torch.zeros(3)], [torch.zeros(3).double()], "all float32 or all float64"),
        ([torch.zeros(3).bfloat16()], [torch.zeros(3).bfloat16()], "all float32 or all float64"),
        ([torch.zeros(3, 4).T], [torch.zeros(4, 3)], "contiguous"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(teacher: list[Tensor], student: list[Tensor], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ema_(teacher, student, 0.9)


def test_nothing_to_do_is_no_error() -> None:
    ema_([], [], 0.9)
    ema_([torch.zeros(0)], [torch.zeros(0)], 0.9)


WIDTHS = [256, 192, 6, 5, 511]


def of_teacher(arena: Arena) -> list[Tensor]:
    return [p.detach().clone() for p in modules(arena)[1].parameters()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shadows", [False, True])
def test_in_an_arena_it_is_the_same_average(width: int, shadows: bool) -> None:
    arena = make_arena(width=width, shadows=shadows)
    expected = of_teacher(arena)
    ema_(expected, list(modules(arena)[0].parameters()), 0.9)
    with Probe():
        ema_arena_(arena, 0.9)
    assert equal(of_teacher(arena), expected)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_shadow_follows_the_teacher(width: int, normalised: bool) -> None:
    arena = make_arena(width=width, normalised=normalised)
    ema_arena_(arena, torch.tensor(0.9))
    exact = expected_shadow(values(modules(arena)[1]), normalised)
    for actual, wanted in zip(arena.views(arena.teacher_shadow), exact, strict=True):
        assert_rounded_to_bfloat16(actual, wanted)


def test_a_row_of_zeros_stays_zero() -> None:
    arena = make_arena()
    for module in modules(arena):
        module.last_layer.weight_v.data[3] = 0
    ema_arena_(arena, 0.5)
    shadow = arena.views(arena.teacher_shadow)[6]
    assert not shadow[3].any() and torch.isfinite(shadow).all()


@pytest.mark.parametrize("width", [256, 6, 5])
def test_padding_stays_zero(width: int) -> None:
    arena = make_arena(rows=3, width=width)
    ema_arena_(arena, 0.5)
    for flat in (arena.student, arena.teacher, arena.student_shadow, arena.teacher_shadow):
        for view in arena.views(flat):
            view.zero_()
        assert not flat.any()


@pytest.mark.parametrize(("shadows", "each"), [(False, 12), (True, 14)])
def test_in_an_arena_12_bytes_a_parameter_and_14_with_shadow(shadows: bool, each: int) -> None:
    # Parameters of whole 16 bytes, as networks have them.
    student, teacher = (torch.nn.Sequential(torch.nn.Linear(4, 384), torch.nn.Linear(256, 20)) for _ in range(2))
    arena = Arena(student, teacher, shadows=shadows, normalised_rows="1.weight")
    with Probe() as probe:
        ema_arena_(arena, 0.5)
    assert probe.launches == {"ema_of_arena": 1}
    buffers = ("teacher_ptr", "student_ptr", "shadow_ptr") if shadows else ("teacher_ptr", "student_ptr")
    moved = sum(probe.loaded("ema_of_arena", b) + probe.stored("ema_of_arena", b) for b in buffers)
    assert moved == each * sum(p.numel() for p in student.parameters())
    # What else moves: a row of the table, the momentum, and whether to normalise.
    assert probe.loaded() + probe.stored() - moved <= 20 * len(arena.layout.blocks)


def test_in_an_arena_in_any_order_the_same_bits() -> None:
    first, second = make_arena(), make_arena()
    ema_arena_(first, 0.9)
    with shuffled_programs(1):
        ema_arena_(second, 0.9)
    assert torch.equal(first.teacher, second.teacher)
    assert torch.equal(first.teacher_shadow, second.teacher_shadow)


def test_an_arena_that_lost_its_parameters_is_noticed() -> None:
    arena = make_arena()
    modules(arena)[1].double()
    with pytest.raises(ValueError, match="the teacher's parameters were moved or replaced"):
        ema_arena_(arena, 0.9)
