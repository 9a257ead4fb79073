"""The optimiser's tail against torch's AdamW, our clipping and our average, step by step and over many steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.gpu_proofs.interpreter import shuffled_programs
from benchmarks.gpu_proofs.probe import Probe
from fastdino.ema import update_teacher
from fastdino.kernels.adamw_ema import StepScalars, adamw_ema_
from fastdino.kernels.arena import Arena
from fastdino.optim import clip_gradients, get_params_groups
from tests.kernels.arena_cases import ROWS, Network, assert_rounded_to_bfloat16, expected_shadow

CLIP = 3.0
ROWS_COUNT = 5


@dataclass(frozen=True)
class Step:
    """What differs from step to step; `frozen` drops the gradient of the last layer."""

    number: int
    lr: float = 0.01
    weight_decay: float = 0.1
    momentum: float = 0.9
    clip: float = CLIP
    scale: float = 1.0
    frozen: bool = False
    found_inf: bool = False
    dtype: torch.dtype = torch.float32

    def gradients(self, network: nn.Module) -> list[Tensor | None]:
        """Scaled as a loss scaler would. Some have norms above the clip and some below, whatever their size."""
        generator = torch.Generator().manual_seed(self.number)
        result: list[Tensor | None] = []
        for i, (name, p) in enumerate(network.named_parameters()):
            gradient = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            gradient *= CLIP * (0.5 if (i + self.number) % 2 else 4.0) / gradient.norm()
            skip = not p.requires_grad or (self.frozen and name == ROWS)
            result.append(None if skip else (gradient * self.scale).to(self.dtype))
        return result

    def scalars(self) -> Tensor:
        found = float(self.found_inf)
        return StepScalars(self.lr, self.weight_decay, self.momentum, self.clip, self.scale, found).on(
            torch.device("cpu")
        )


def schedule(count: int = 24) -> list[Step]:
    """Everything changes; the last layer is frozen at first, and one step finds infinities."""
    return [
        Step(
            i,
            lr=0.02 * (i + 1) / count,
            weight_decay=0.04 + 0.3 * i / count,
            momentum=1 - 0.1 * (1 - i / count),
            scale=2.0 ** (i % 5),
            frozen=i < 5,
            found_inf=i == 9,
        )
        for i in range(count)
    ]


class Pair:
    """Student, teacher and AdamW of torch."""

    def __init__(self, width: int = 256, dtype: torch.dtype = torch.float64) -> None:
        self.student, self.teacher = (Network(ROWS_COUNT, width, seed).to(dtype) for seed in (0, 1))
        self.optimizer = AdamW(get_params_groups(self.student))

    def step(self, step: Step) -> Tensor:
        """What fastdino.train.step does, in this order; returns the norms."""
        for p, gradient in zip(self.student.parameters(), step.gradients(self.student), strict=True):
            p.grad = None if gradient is None else gradient.to(p.dtype) / step.scale
        norms = clip_gradients(self.student, step.clip) if step.clip else torch.zeros(0)
        for group, decay in zip(self.optimizer.param_groups, (step.weight_decay, 0.0), strict=True):
            group["lr"], group["weight_decay"] = step.lr, decay
        if not step.found_inf:
            self.optimizer.step()
        update_teacher(self.teacher, self.student, step.momentum)
        return norms


class InArena(Pair):
    """The same in an arena, by the kernels."""

    def __init__(self, width: int = 256, dtype: torch.dtype = torch.float32, shadows: bool = True) -> None:
        super().__init__(width, dtype)
        self.arena = Arena(self.student, self.teacher, shadows, ROWS)
        self.arena.attach(self.optimizer)

    def step(self, step: Step) -> Tensor:
        gradients = step.gradients(self.student)
        if self.arena.dtype == torch.float64:
            gradients = [None if g is None else g.double() for g in gradients]
        self.arena.gather_gradients(gradients)
        return adamw_ema_(self.arena, step.scalars())

    def state(self) -> list[Tensor]:
        a = self.arena
        flat = (a.student, a.teacher, a.exp_avg, a.exp_avg_sq, a.student_shadow, a.teacher_shadow, a.steps, a.norms)
        return [x.clone() for x in flat if x is not None]

    def in_float64(self) -> Pair:
        """Torch, from where this stands."""
        pair = Pair(self.student.last_layer.weight_v.shape[1])
        pair.student.load_state_dict(self.student.state_dict())
        pair.teacher.load_state_dict(self.teacher.state_dict())
        pair.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return pair


AnyPair = TypeVar("AnyPair", bound=Pair)


def run(pair: AnyPair, steps: Sequence[Step]) -> AnyPair:
    for step in steps:
        pair.step(step)
    return pair


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("width", "count"), [(256, 20), (6, 6)])
def test_float64_follows_torch_over_many_steps(width: int, count: int) -> None:
    ours, torchs = run(InArena(width, torch.float64), schedule(count)), run(Pair(width), schedule(count))
    # A step's relative error is that of 1 - beta2^step, in which 1 / (1 - beta2) = 1,000 units are lost, and some 50
    # roundings; 24 steps of it, each of at most the learning rate times 10 (exp_avg / deviation of 24 steps).
    tolerance = 24 * 0.02 * 10 * 1050 * 2.0**-53
    for module in ("student", "teacher"):
        for a, b in zip(getattr(ours, module).parameters(), getattr(torchs, module).parameters(), strict=True):
            # And the roundings of the value itself, of at most 8.
            assert (a - b).abs().max() <= tolerance + 24 * 4 * 8 * 2.0**-53
    for p, q in zip(ours.student.parameters(), torchs.student.parameters(), strict=True):
        if p.requires_grad:
            a, b = ours.optimizer.state[p], torchs.optimizer.state[q]
            assert a["step"] == b["step"]
            for moment in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(a[moment], b[moment], rtol=24 * 50 * 2.0**-53, atol=24 * 50 * 2.0**-53)


@dataclass(frozen=True)
class Expected:
    """One parameter after a step in float64, and how far float32 may be from it."""

    values: dict[str, Tensor]
    errors: dict[str, Tensor]


def expect(before: Pair, after: Pair, step: Step, index: int) -> Expected:
    """The errors from the roundings of each operation, u = 2^-24 each, and the errors of its operands.

    A norm is a root of a sum, which numpy adds up pairwise in blocks of 128 in eight lanes: at most 16 + 20 roundings.
    """
    u = 2.0**-24
    (p, t), (new_p, new_t) = (
        [list(m.parameters())[index].detach() for m in (pair.student, pair.teacher)] for pair in (before, after)
    )
    w = 1 - step.momentum
    error_p = torch.zeros_like(p)
    values, errors = {"student": new_p, "teacher": new_t}, dict[str, Tensor]()
    parameter = list(after.student.parameters())[index]
    if parameter.grad is not None and not step.found_inf:
        state = after.optimizer.state[parameter]
        m, v, count = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
        g, of_g = parameter.grad, 45 * u  # clipped: norm, quotient, product and unscaling
        old_m = before.optimizer.state[list(before.student.parameters())[index]].get("exp_avg", torch.zeros_like(m))
        error_m = u * m.abs() + 0.1 * ((g - old_m).abs() * 3 * u + g.abs() * of_g)
        of_v = 6 * u + 2 * of_g
        root = (1 - 0.999**count) ** 0.5
        deviation = v.sqrt() / root + 1e-8
        of_deviation = of_v / 2 + 5 * u
        size = step.lr / (1 - 0.9**count)
        error_p = size * (error_m / deviation + m.abs() / deviation * (of_deviation + 4 * u)) + 3 * u * p.abs()
        values |= {"exp_avg": m, "exp_avg_sq": v}
        errors |= {"exp_avg": error_m, "exp_avg_sq": of_v * v + 2.0**-149}
    error_p = error_p + (u * new_p.abs() if error_p.any() else 0)
    error_t = u * new_t.abs() + w * (error_p + 3 * u * (new_p - t).abs())
    return Expected(values, errors | {"student": error_p, "teacher": error_t})


@pytest.mark.parametrize(
    ("width", "dtype", "count"), [(256, torch.float32, 24), (6, torch.float32, 6), (256, torch.bfloat16, 6)]
)
def test_every_step_is_torchs_but_for_rounding(width: int, dtype: torch.dtype, count: int) -> None:
    """Each step in float64 from where the kernels stood before it."""
    ours = InArena(width)
    for step in (replace(step, dtype=dtype) for step in schedule(count)):
        before, after = ours.in_float64(), ours.in_float64()
        with Probe() as probe:
            ours.arena.gather_gradients(step.gradients(ours.student))
            for i, gradient in enumerate(ours.arena.gradients()):
                probe.watch(f"gradient {i}", gradient)
            adamw_ema_(ours.arena, step.scalars())
        after.step(step)
        for index, p in enumerate(ours.student.parameters()):
            expected = expect(before, after, step, index)
            actual = {"student": p, "teacher": list(ours.teacher.parameters())[index]} | ours.optimizer.state.get(p, {})
            for name, value in expected.values.items():
                error = (actual[name].detach().double() - value).abs()
                assert (error <= expected.errors[name] * (1 + 2.0**-20)).all(), (step, index, name)
            if p.requires_grad:
                assert actual["step"] == after.optimizer.state[list(after.student.parameters())[index]].get("step", 0)


def test_after_many_steps_float32_is_as_near_as_torchs_own() -> None:
    true, torchs, ours = (run(pair, schedule(12)) for pair in (Pair(), Pair(dtype=torch.float32), InArena()))
    for module in ("student", "teacher"):
        for exact, theirs, mine in zip(
            *(getattr(pair, module).parameters() for pair in (true, torchs, ours)), strict=True
        ):
            unit = 2.0**-24 * exact.double().norm()
            assert (mine.double() - exact).norm() <= 1.5 * (theirs.double() - exact).norm() + unit


@pytest.mark.parametrize("width", [256, 6])
def test_shadows_follow(width: int) -> None:
    ours = InArena(width)
    for step in schedule(4):
        ours.step(step)
        for module, shadow in (
            (ours.student, ours.arena.student_shadow),
            (ours.teacher, ours.arena.teacher_shadow),
        ):
            parameters = {name: p.detach() for name, p in module.named_parameters()}
            for actual, exact in zip(ours.arena.views(shadow), expected_shadow(parameters), strict=True):
                assert_rounded_to_bfloat16(actual, exact)


def test_shadows_change_no_other_bit() -> None:
    with_shadows, without = (run(InArena(shadows=shadows), schedule(4)).state()[:4] for shadows in (True, False))
    assert equal(with_shadows, without)


def test_a_frozen_last_layer_keeps_everything_and_counts_no_steps() -> None:
    ours = InArena()
    v, g = ours.student.last_layer.weight_v, ours.student.last_layer.weight_g
    before = v.detach().clone()
    run(ours, [Step(i, frozen=True) for i in range(3)])
    assert torch.equal(v.detach(), before)
    assert ours.arena.steps.tolist() == [3, 3, 3, 3, 3, 0, 0]
    assert not ours.optimizer.state[v]["exp_avg"].any() and g not in ours.optimizer.state
    ours.step(Step(3))
    assert not torch.equal(v.detach(), before)
    assert ours.arena.steps.tolist() == [4, 4, 4, 4, 4, 0, 1]


def test_after_an_overflow_only_the_teacher_moves() -> None:
    ours = run(InArena(), schedule(3))
    student, teacher, *moments = ours.state()[:4]
    steps = ours.arena.steps.clone()
    gradients = [None if g is None else g * float("inf") for g in Step(3).gradients(ours.student)]
    ours.arena.gather_gradients(gradients)
    adamw_ema_(ours.arena, Step(3, found_inf=True).scalars())
    after = ours.state()
    assert equal([after[0], *after[2:4]], [student, *moments]) and torch.equal(ours.arena.steps, steps)
    assert not torch.equal(after[1], teacher) and after[1].isfinite().all()


def test_without_clip_gradients_stay_as_they_are() -> None:
    steps = [Step(i, clip=0.0) for i in range(2)]
    ours, torchs = run(InArena(dtype=torch.float64), steps), run(Pair(), steps)
    for a, b in zip(ours.student.parameters(), torchs.student.parameters(), strict=True):
        # As in the test over many steps.
        assert (a - b).abs().max() <= 3 * (0.01 * 10 * 1050 + 4 * 8) * 2.0**-53


@pytest.mark.parametrize("scale", [1.0, 256.0])
def test_norms_are_those_before_clipping_in_the_order_of_parameters(scale: float) -> None:
    step = Step(0, scale=scale)
    norms = InArena().step(step)
    expected = Pair().step(step)
    assert norms[5] == 0
    # 36 roundings as in `expect`, halved by the root.
    torch.testing.assert_close(norms[[0, 1, 2, 3, 4, 6]].double(), expected, rtol=20 * 2.0**-24, atol=0)


@pytest.mark.parametrize("length", [1024, 3072])
def test_a_norm_is_the_same_from_any_number_of_chunks(length: int) -> None:
    """Networks in tests are too small for a second one."""
    step = Step(1)
    with mock.patch("fastdino.kernels.arena_layout.CHUNK", length):
        ours = InArena()
    assert ours.arena.layout.tensors[3, 2] == -(-4100 // length)
    before, after = ours.in_float64(), ours.in_float64()
    norms, expected = ours.step(step), after.step(step)
    torch.testing.assert_close(norms[[0, 1, 2, 3, 4, 6]].double(), expected, rtol=20 * 2.0**-24, atol=0)
    for index, p in enumerate(ours.student.parameters()):
        wanted = expect(before, after, step, index)
        error = (p.detach().double() - wanted.values["student"]).abs()
        assert (error <= wanted.errors["student"] * (1 + 2.0**-20)).all()


def through_autograd(v: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of v in float64 from that of v / |v|."""
    leaf = v.detach().double().requires_grad_()
    nn.functional.normalize(leaf, dim=1).backward(gradient.double())
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("width", [256, 192, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_of_normalised_rows_become_those_of_the_matrix(width: int, dtype: torch.dtype) -> None:
    wide = dtype == torch.float64
    with mock.patch("fastdino.kernels.arena_layout.CHUNK", 1024):
        ours = InArena(width, torch.float64 if wide else torch.float32)
    v = ours.student.last_layer.weight_v
    scale = 8.0
    gradients = [None if g is None else (g * scale).to(dtype) for g in Step(1).gradients(ours.student)]
    norm, w = v.detach().double().norm(dim=1, keepdim=True), nn.functional.normalize(v.detach().double(), dim=1)
    given = gradients[6].double() / scale
    true = through_autograd(v, given)
    with Probe() as probe:
        ours.arena.gather_gradients(gradients, of_shadows=True)
        for i, gradient in enumerate(ours.arena.gradients()):
            probe.watch(f"gradient {i}", gradient)
        norms = adamw_ema_(ours.arena, Step(1, clip=0.0, scale=scale).scalars())
    unit = 2.0**-53 if wide else 2.0**-24
    # A row's length and product are sums over 36 roundings at most, and there are some 14 roundings beside.
    error = 50 * unit * (given.abs() + (given * w).abs().sum(dim=1, keepdim=True) * w.abs()) / norm
    exp_avg = ours.optimizer.state[v]["exp_avg"].double()
    # exp_avg is a tenth of the gradient after the first step.
    assert ((10 * exp_avg - true).abs() <= 1.01 * error + 4 * unit * true.abs()).all()
    assert abs(norms[6] - true.norm()) <= error.norm() + 20 * 2.0**-24 * true.norm()
    for i in (0, 1, 2, 3, 4):
        p = list(ours.student.parameters())[i]
        torch.testing.assert_close(
            10 * ours.optimizer.state[p]["exp_avg"].double(), gradients[i].double() / scale, rtol=4 * unit, atol=0
        )


def test_gradients_of_both_types_may_meet_in_a_step() -> None:
    """What bfloat16 holds, float32 holds too: the step must not know the difference."""
    pairs = [InArena(), InArena()]
    for i, pair in enumerate(pairs):
        gradients = Step(0).gradients(pair.student)
        narrow = [g if g is None or n % 2 else g.bfloat16() for n, g in enumerate(gradients)]
        pair.arena.gather_gradients(
            narrow if i else [None if g is None else g.float() for g in narrow], of_shadows=True
        )
        adamw_ema_(pair.arena, Step(0).scalars())
    assert equal(pairs[0].state(), pairs[1].state())


@pytest.mark.parametrize("found_inf", [False, True])
@pytest.mark.parametrize(("width", "given"), [(256, 6), (192, 1), (6, 17)])
def test_the_center_moves_to_what_the_teachers_rows_made_of_the_mean(width: int, given: int, found_inf: bool) -> None:
    pair, plain = InArena(width), InArena(width)
    generator = torch.Generator().manual_seed(1)
    center, inputs = (torch.randn(count, n, generator=generator) for count, n in ((1, ROWS_COUNT), (given, width)))
    mean = inputs.double().mean(dim=0)
    rows = torch.nn.functional.normalize(pair.teacher.last_layer.weight_v.double(), dim=1)
    expected = 0.9 * center.double() + 0.1 * (rows @ mean)
    step = Step(0, found_inf=found_inf)
    pair.arena.gather_gradients(step.gradients(pair.student))
    with Probe() as probe:
        for i, gradient in enumerate(pair.arena.gradients()):
            probe.watch(f"gradient {i}", gradient)
        adamw_ema_(pair.arena, step.scalars(), center, inputs)
    # The mean, a sum of `width` products of at most its length together, a row's length, and the average.
    largest = float(inputs.norm(dim=1).max() + center.abs().max())
    torch.testing.assert_close(center.double(), expected, rtol=0, atol=(2 * width + given + 4) * 2**-24 * largest)
    plain.step(step)
    assert equal(pair.state(), plain.state())
    assert probe.stored("adamw_and_ema", "center_ptr") == 4 * ROWS_COUNT


def test_a_gradient_that_is_no_number_stays_with_its_parameter() -> None:
    ours = InArena()
    gradients = Step(0).gradients(ours.student)
    gradients[3][0, 0] = float("nan")
    ours.arena.gather_gradients(gradients)
    adamw_ema_(ours.arena, Step(0).scalars())
    finite = [bool(p.isfinite().all()) for p in ours.student.parameters()]
    assert finite == [True, True, True, False, True, True, True]


def test_twice_and_in_any_order_the_same_bits() -> None:
    steps = schedule(3)
    first = run(InArena(), steps).state()
    assert equal(first, run(InArena(), steps).state())
    with shuffled_programs(1):
        assert equal(first, run(InArena(), steps).state())


def whole_networks() -> tuple[nn.Module, nn.Module]:
    """Parameters of whole 16 bytes, as networks have them."""
    student, teacher = (nn.Sequential(nn.Linear(16, 384), nn.Linear(256, 68)) for _ in range(2))
    return student, teacher


@pytest.mark.parametrize(
    ("dtype", "shadows", "each"), [(torch.float32, True, 44), (torch.bfloat16, True, 40), (torch.float32, False, 40)]
)
def test_two_launches_of_44_bytes_a_parameter(dtype: torch.dtype, shadows: bool, each: int) -> None:
    student, teacher = whole_networks()
    arena = Arena(student, teacher, shadows, "1.weight")
    arena.attach(AdamW(student.parameters()))
    arena.gather_gradients([torch.ones_like(p, dtype=dtype) for p in student.parameters()])
    with Probe() as probe:
        for i, gradient in enumerate(arena.gradients()):
            probe.watch(f"gradient {i}", gradient)
        adamw_ema_(arena, Step(0).scalars())
    assert probe.launches == {"squares_and_constants": 1, "adamw_and_ema": 1}
    flat = (
        "gradient",
        "student_ptr",
        "teacher_ptr",
        "exp_avg_ptr",
        "exp_avg_sq_ptr",
        "student_shadow",
        "teacher_shadow",
    )
    of_parameters = [t for (_, name), t in probe.traffic.items() if name.startswith(flat)]
    count = sum(p.numel() for p in student.parameters())
    assert sum(t.loaded + t.stored for t in of_parameters) == each * count
    # What else moves are numbers per block and per chunk: some 100 bytes for every 1,024 parameters, and at most
    # 256 chunks of 4 bytes out of the cache.
    others = probe.loaded() + probe.stored() - each * count
    assert others <= 100 * len(arena.layout.blocks) + 100 * len(arena.layout.chunks) + 100 * len(arena.layout.tensors)


def test_gradients_of_normalised_rows_cost_4_bytes_for_each_of_their_values() -> None:
    student, teacher = whole_networks()
    arena = Arena(student, teacher, True, "1.weight")
    arena.attach(AdamW(student.parameters()))
    arena.gather_gradients([torch.ones_like(p) for p in student.parameters()], of_shadows=True)
    with Probe() as probe:
        for i, gradient in enumerate(arena.gradients()):
            probe.watch(f"gradient {i}", gradient)
        adamw_ema_(arena, Step(0).scalars())
    assert probe.loaded("squares_and_constants", "student_ptr") == 4 * student[1].weight.numel()


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    arena = Arena(*whole_networks())
    with pytest.raises(ValueError, match=r"call arena\.attach\(optimizer\) first"):
        adamw_ema_(arena, Step(0).scalars())
    arena.attach(AdamW(arena.student_parameters()))
    for wrong in (Step(0).scalars()[:3], Step(0).scalars().float()):
        with pytest.raises(ValueError, match=r"scalars must be float64 of shape \(10,\) on cpu"):
            adamw_ema_(arena, wrong)
    with pytest.raises(ValueError, match="with normalised rows only"):
        adamw_ema_(arena, Step(0).scalars(), torch.zeros(68), torch.zeros(1, 256))
    rows = Arena(*whole_networks(), normalised_rows="1.weight")
    rows.attach(AdamW(rows.student_parameters()))
    right = torch.zeros(68), torch.zeros(4, 256)
    for center in (torch.zeros(67), torch.zeros(68).double(), None):
        with pytest.raises(ValueError, match="the center must have 68 values, contiguous float32 on cpu"):
            adamw_ema_(rows, Step(0).scalars(), center, right[1])
    for inputs in (torch.zeros(256), torch.zeros(0, 256), torch.zeros(256, 4).T, None):
        with pytest.raises(ValueError, match=r"inputs must be \(R, 256\), contiguous float32 on cpu"):
            adamw_ema_(rows, Step(0).scalars(), right[0], inputs)
