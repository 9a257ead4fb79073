"""Layer normalisation with both gradients at once: against float64, under the probe, in any order, and its bytes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu_proofs import meta_layer_norm
from benchmarks.gpu_proofs.dispatch_counter import Count, DispatchCounter
from benchmarks.gpu_proofs.interpreter import shuffled_programs
from benchmarks.gpu_proofs.probe import Probe
from fastdino.kernels import layer_norm
from fastdino.kernels.layer_norm import DTYPES, normalized

EPS = 1e-6
UNIT = 2.0**-24


def inputs(rows: int, width: int, offset: float = 0.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, weight and bias."""
    generator = torch.Generator().manual_seed(rows * width)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((rows, width), (width,), (width,)))
    return [tensor.to(dtype).requires_grad_() for tensor in (x + offset, 1 + weight / 4, bias)]


def gradients(rows: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of x itself and of the normalised rows."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, width, generator=generator), torch.randn(rows, width, generator=generator).to(dtype)


def everything(tensors: list[Tensor], of_x: Tensor, of_out: Tensor) -> list[Tensor]:
    """The normalised rows, and the gradients of x, weight and bias."""
    same, out = normalized(*tensors, EPS, of_out.dtype)
    assert torch.equal(same, tensors[0])
    return [out.detach(), *torch.autograd.grad((same, out), tensors, (of_x, of_out))]


def assert_close_to_float64(actual: list[Tensor], tensors: list[Tensor], of_x: Tensor, of_out: Tensor) -> None:
    """Sums of n numbers are off by log2 n roundings of their size, as Triton and NumPy add: in trees."""
    x, weight, bias = (t.detach().double().requires_grad_() for t in tensors)
    of_x, of_out = of_x.double(), of_out.double()
    width = x.shape[-1]
    out = F.layer_norm(x, (width,), weight, bias, EPS)
    true = [out, *torch.autograd.grad((1 * x, out), (x, weight, bias), (of_x, of_out))]
    x, weight, bias, out = (t.detach() for t in (x, weight, bias, out))
    inverse = (x.var(dim=-1, correction=0, keepdim=True) + EPS).rsqrt()
    n = ((x - x.mean(dim=-1, keepdim=True)) * inverse).abs()
    # What is off before the mean is subtracted grows with what is left after it.
    lost = 1 + inverse * x.abs().amax(dim=-1, keepdim=True)
    roundings = (math.log2(width) + 10) * UNIT
    gradient = of_out.abs() * weight.abs()
    sums = gradient.mean(dim=-1, keepdim=True), (gradient * (n + 1)).mean(dim=-1, keepdim=True)
    summed = roundings + (math.log2(len(x)) + 2) * UNIT
    bounds = [
        roundings * (weight.abs() * (n + lost) + bias.abs()) + torch.finfo(actual[0].dtype).eps / 2 * out.abs(),
        roundings * lost * (inverse * (gradient + sums[0] + (n + 1) * sums[1]) + of_x.abs()),
        summed * (of_out.abs() * (n + lost)).sum(dim=0),
        summed * of_out.abs().sum(dim=0),
    ]
    for name, a, t, bound in zip(("rows", "x", "weight", "bias"), actual, true, bounds, strict=True):
        error = (a.double() - t).abs()
        assert (error <= bound).all(), f"{name}: {(error / bound).max():.2f} of what is allowed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(37, 384), (5, 192), (3, 1024), (7, 33), (1, 1), (2, 4096)])
def test_equals_float64(rows: int, width: int, dtype: torch.dtype) -> None:
    tensors, given = inputs(rows, width), gradients(rows, width, dtype)
    with Probe() as probe:
        actual = everything(tensors, *given)
    assert [t.dtype for t in actual] == [dtype, *[torch.float32] * 3]
    assert probe.launches == {"normalize_rows": 1, "normalize_rows_gradient": 1}
    assert_close_to_float64(actual, tensors, *given)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 70),
    width=st.integers(2, 300),
    offset=st.sampled_from([0.0, -3.0, 1000.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_equals_float64_for_any_shape(rows: int, width: int, offset: float, dtype: torch.dtype) -> None:
    tensors, given = inputs(rows, width, offset), gradients(rows, width, dtype)
    with Probe():
        actual = everything(tensors, *given)
    assert_close_to_float64(actual, tensors, *given)


def test_programs_take_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, given = inputs(45, 384), gradients(45, 384, torch.bfloat16)
    expected = everything(tensors, *given)
    monkeypatch.setattr(layer_norm, "PROGRAMS", 3)
    with Probe():
        actual = everything(tensors, *given)
    assert torch.equal(actual[1], expected[1])
    assert_close_to_float64(actual, tensors, *given)


def test_in_any_order_the_same_bits() -> None:
    tensors, given = inputs(30, 200), gradients(30, 200, torch.bfloat16)
    with shuffled_programs(0):
        shuffled = everything(tensors, *given)
    assert all(map(torch.equal, shuffled, everything(tensors, *given)))


def test_float64_has_the_gradients_of_what_it_computes() -> None:
    tensors = inputs(5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: normalized(*t, EPS, torch.float64), tensors)


def test_rows_and_gradients_may_have_any_strides() -> None:
    x, weight, bias = inputs(12, 40)
    strided = torch.stack((x.detach(), -x.detach()), dim=-1)[..., 0].requires_grad_()
    of_x, of_out = torch.ones(1, 1).expand(12, 40), torch.randn(40, 12).T
    actual = everything([strided, weight, bias], of_x, of_out)
    assert all(map(torch.equal, actual, everything([x, weight, bias], of_x.contiguous(), of_out.contiguous())))


def test_what_takes_no_gradient_gives_none() -> None:
    x, weight, bias = inputs(4, 16)
    same, out = normalized(x.detach(), weight.detach(), bias.detach(), EPS, torch.bfloat16)
    assert not same.requires_grad and not out.requires_grad
    same, out = normalized(x, weight, bias, EPS, torch.bfloat16)
    # One of the two results has no use: its gradient is 0.
    (of_x,) = torch.autograd.grad(same.sum(), x, retain_graph=True)
    torch.testing.assert_close(of_x, torch.ones_like(x), rtol=0, atol=0)
    (of_bias,) = torch.autograd.grad(out.float().sum(), bias)
    torch.testing.assert_close(of_bias, torch.full_like(bias, 4), rtol=0, atol=0)


def test_moves_what_the_operations_that_stand_in_for_it_are_counted_with() -> None:
    rows, width = 37, 384
    x, weight, bias = (t.detach() for t in inputs(rows, width))
    of_x, of_out = gradients(rows, width, torch.bfloat16)
    with Probe() as probe:
        _, *statistics = layer_norm.forward(x, weight, bias, EPS, torch.bfloat16)
        layer_norm.gradients(of_out, of_x, x, weight, *statistics)
    on_meta = [t.to("meta") for t in (x, weight, bias, of_x, of_out, *statistics)]
    x, weight, bias, of_x, of_out, *statistics = on_meta
    with DispatchCounter("meta") as counter:
        meta_layer_norm.forward(x, weight, bias, EPS, torch.bfloat16)
        meta_layer_norm.gradients(of_out, of_x, x, weight, *statistics)
    loaded = sum(traffic.unique_loaded for traffic in probe.traffic.values())
    stored = sum(traffic.unique_stored for traffic in probe.traffic.values())
    assert counter.count == Count(loaded, stored, probe.launches.total())
    # Six bytes a value forward and fourteen backward; beside them two numbers a row, and what is as wide as a row.
    programs = layer_norm.programs_of_gradient(rows, width)
    assert loaded + stored == 20 * rows * width + 4 * (4 * rows + (3 + 2 * programs) * width)


@pytest.mark.parametrize(
    ("x", "dtype", "complaint"),
    [
        (torch.zeros(2, 8).bfloat16(), torch.bfloat16, "tokens are float32"),
        (torch.zeros(2, 8), torch.float64, "tokens are float32"),
        (torch.zeros(2, 9), torch.bfloat16, "the weight must be 9 values"),
        (torch.zeros(2, 4097), torch.bfloat16, "from 1 to 4096 values"),
        (torch.zeros(()), torch.bfloat16, "from 1 to 4096 values"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(x: Tensor, dtype: torch.dtype, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        normalized(x, torch.zeros(8), torch.zeros(8), EPS, dtype)


def test_no_rows_are_no_error() -> None:
    x, weight, bias = inputs(0, 8)
    actual = everything([x, weight, bias], torch.zeros(0, 8), torch.zeros(0, 8))
    assert [t.shape for t in actual] == [(0, 8), (0, 8), (8,), (8,)]
    assert torch.equal(actual[2], torch.zeros(8))
