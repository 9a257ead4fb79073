"""Norms by the kernel, in Triton's interpreter, and where they are PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is made for Linux only")

from benchmarks.gpu_proofs.interpreter import correct_bfloat16
from fastdino import VisionTransformer
from fastdino.kernels import layer_norm
from fastdino.models.norms import dtype_of_products, normalized

correct_bfloat16()


def network(implementation: str, rate: float = 0.0) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, embed_dim=32, depth=3, num_heads=2, drop_path_rate=rate)
    model.set_implementation(implementation)
    return model


def gradients(model: VisionTransformer, dtype: torch.dtype) -> list[Tensor]:
    """Features and the gradients of all weights, with autocast if `dtype` is a narrow one."""
    torch.manual_seed(1)
    # The sum of an output's squares is what the last norm makes it: its gradient would be rounding alone.
    crops, weights = [torch.randn(2, 3, 16, 16), torch.randn(3, 3, 8, 8)], torch.randn(5, 32)
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        output = model.forward_packed(crops).float()
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), list(model.parameters()))]


@pytest.mark.parametrize("checkpointing", ["none", "attention", "block"])
# Drops none, scales all, leaves some out.
@pytest.mark.parametrize("rate", [0.0, 0.02, 0.4])
def test_a_network_is_the_same_with_either(rate: float, checkpointing: str) -> None:
    ours, plain = network("triton", rate), network("torch", rate)
    ours.set_checkpointing(checkpointing)
    for a, b in zip(gradients(ours, torch.float32), gradients(plain, torch.float32), strict=True):
        # A hundred roundings of float32 on the way, relative to all of a tensor.
        assert (a - b).norm() <= 100 * 2.0**-24 * b.norm()


def test_in_bfloat16_the_error_is_that_of_autocast() -> None:
    ours, autocast = (gradients(network(name), torch.bfloat16) for name in ("triton", "torch"))
    for a, b, e in zip(ours, autocast, gradients(network("torch"), torch.float32), strict=True):
        # Roundings of bfloat16, few and in other places.
        assert (a - e).norm() <= 1.5 * (b - e).norm() + 2.0**-9 * e.norm()


def test_normalised_tokens_are_computed_again_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, forward = [], layer_norm.forward

    def counted(*arguments: object) -> object:
        calls.append(torch.is_grad_enabled())
        return forward(*arguments)

    monkeypatch.setattr(layer_norm, "forward", counted)
    with torch.autocast("cpu", torch.bfloat16):
        output = network("triton").forward_packed([torch.randn(2, 3, 16, 16)]).float().sum()
    assert len(calls) == 6
    output.backward()
    # The last block's queries and keys are two products, and each asks for them.
    assert len(calls) in (12, 13)


@pytest.mark.parametrize(
    ("norm", "width", "dtype"),
    [
        (nn.LayerNorm(8, bias=False), 8, torch.float32),
        (nn.LayerNorm(8, elementwise_affine=False), 8, torch.float32),
        (nn.RMSNorm(8), 8, torch.float32),
        (nn.LayerNorm(8).bfloat16(), 8, torch.bfloat16),
        (nn.LayerNorm(8).double(), 8, torch.float64),
        (nn.LayerNorm(layer_norm.WIDEST + 1), layer_norm.WIDEST + 1, torch.float32),
    ],
)
def test_other_norms_and_tokens_are_pytorchs(norm: nn.Module, width: int, dtype: torch.dtype) -> None:
    x = torch.randn(3, width, dtype=dtype)
    same, out = normalized(norm, x, dtype, "triton")
    assert same is x
    assert torch.equal(out, norm(x))


def test_products_have_autocasts_type() -> None:
    cpu = torch.device("cpu")
    assert dtype_of_products(cpu) == dtype_of_products(torch.device("meta")) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert dtype_of_products(cpu) == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert dtype_of_products(cpu) == torch.float32
