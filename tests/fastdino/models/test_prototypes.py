from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastdino.models import prototypes as module
from fastdino.models.prototypes import Prototypes

ROWS, WIDTH, COUNT = 6, 5, 23


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)


def layer(trains_lengths: bool, dtype: torch.dtype = torch.float32) -> Prototypes:
    torch.manual_seed(0)
    prototypes = Prototypes(WIDTH, COUNT).to(dtype)
    torch.nn.init.uniform_(prototypes.weight_g, 0.5, 2)
    prototypes.weight_g.requires_grad = trains_lengths
    return prototypes


def plain(x: Tensor, prototypes: Prototypes) -> Tensor:
    return F.linear(x, prototypes.weight_g * F.normalize(prototypes.weight_v, dim=1))


@pytest.mark.parametrize("trains_lengths", [False, True])
def test_blocks_equal_the_plain_product(trains_lengths: bool) -> None:
    prototypes = layer(trains_lengths)
    x, upstream = torch.randn(ROWS, WIDTH, requires_grad=True), torch.randn(ROWS, COUNT)
    leaves = [x, *(p for p in prototypes.parameters() if p.requires_grad)]
    ours, expected = prototypes(x), plain(x, prototypes)
    # Sums of at most 23 products of numbers of order 1.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    for gradient, plain_gradient in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(gradient, plain_gradient, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    prototypes = layer(True, torch.float64)
    x = torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module._BlockedProducts.apply, (x, prototypes.weight_v, prototypes.weight_g))


def test_a_prototype_of_zeros_is_an_answer_of_zero() -> None:
    prototypes = layer(False)
    prototypes.weight_v.data[3] = 0
    x = torch.randn(ROWS, WIDTH, requires_grad=True)
    logits = prototypes(x)
    assert not logits[:, 3].any()
    logits.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_frozen_prototypes_get_no_gradient_and_cost_no_product() -> None:
    prototypes = layer(False).requires_grad_(False)
    x = torch.randn(ROWS, WIDTH, requires_grad=True)
    prototypes(x).sum().backward()
    assert prototypes.weight_v.grad is None and x.grad is not None


def test_prototypes_are_never_copied_as_a_whole() -> None:
    largest = 0

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **kwargs or {})
            given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            for x in tree_leaves(result):
                if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in given:
                    largest = max(largest, x.untyped_storage().nbytes() // x.element_size())
            return result

    prototypes = layer(False)
    with Watching(), torch.no_grad():
        prototypes(torch.randn(2, WIDTH))
    assert largest == 2 * COUNT < WIDTH * COUNT
