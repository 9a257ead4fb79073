"""Compiled by a backend that leaves out only the last stage, the code generator: what is traced is the same."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from fastdino import VisionTransformer
from fastdino.attention import Packing, attention

DEPTH = 4
# A compiler sees through caches, and what stands behind them tries out kernels on a GPU.
pytestmark = pytest.mark.filterwarnings("error:Dynamo detected a call to a `functools.lru_cache`")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What is compiled, one entry a graph; a graph break is an error, because the whole block is asked for."""
    from torch._dynamo.backends.debugging import aot_eager

    compiled: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(graph)
        return aot_eager(graph, inputs)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return compiled


def network(rate: float, depth: int = DEPTH) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(16, 8, embed_dim=24, depth=depth, num_heads=3, drop_path_rate=rate)


def step(model: VisionTransformer, crops: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    output = model.forward_packed(crops)
    return output, list(torch.autograd.grad(output.square().mean(), list(model.parameters())))


def test_compiled_blocks_equal_the_others_and_are_compiled_once(graphs: list[torch.fx.GraphModule]) -> None:
    plain, compiled = network(0.0), network(0.0)
    compiled.compile_blocks()
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for seed in range(3):
        torch.manual_seed(seed)
        crops = [torch.randn(2, 3, 16, 16), torch.randn(4, 3, 8, 8)]
        (output, gradients), (expected, plain_gradients) = step(compiled, crops), step(plain, crops)
        # The same operations in another order of fusion: sums of up to 96 products.
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
        for gradient, plain_gradient in zip(gradients, plain_gradients, strict=True):
            torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-6)
        assert len(graphs) == 2, "one for the first blocks, one for the last"


def test_stochastic_depth_compiles_two_more_whatever_the_depth(graphs: list[torch.fx.GraphModule]) -> None:
    # More blocks, each with a rate of its own, than times that a compiler tries before it gives up.
    model = network(0.3, depth=12)
    model.compile_blocks()
    for _ in range(3):
        step(model, [torch.randn(2, 3, 16, 16), torch.randn(4, 3, 8, 8)])
    assert len(graphs) <= 4


def test_xformers_is_left_to_those_who_do_not_compile(
    graphs: list[torch.fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastdino import attention as module

    def varlen(q: Tensor, *_: object) -> Tensor:
        return q * 2

    monkeypatch.setattr(module, "choose", lambda *_: ("xformers", "as on a GPU"))
    monkeypatch.setitem(module._FUNCTIONS, "varlen", varlen)
    q = torch.ones(4, 1, 8)
    compiled = torch.compile(lambda q: attention(q, q, q, Packing(((2, 2),))), fullgraph=True)
    assert torch.equal(compiled(q), 2 * q)
