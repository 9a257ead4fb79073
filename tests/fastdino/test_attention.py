from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastdino import attention as module
from fastdino.attention import Packing, attention, attention_rows, choose

packings = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda groups: Packing(tuple(groups))
)


def one_by_one(qkv: Tensor, packing: Packing) -> Tensor:
    """The formula, sequence by sequence, in float64."""
    outputs = []
    for sequence in qkv.double().split(packing.lengths):
        q, k, v = (x.transpose(0, 1) for x in sequence.unbind(1))
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1)
        outputs.append((weights @ v).transpose(0, 1))
    return torch.cat(outputs)


def packed_attention(qkv: Tensor, packing: Packing, backend: str) -> Tensor:
    q, k, v = qkv.unbind(1)
    return attention(q, k, v, packing, backend=backend)


def draw(packing: Packing, heads: int = 2, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(packing.tokens)
    return torch.randn(packing.tokens, 3, heads, width, generator=generator)


@settings(max_examples=40, deadline=None)
@given(packing=packings)
def test_backends_equal_the_formula_and_one_another(packing: Packing) -> None:
    qkv = draw(packing)
    for backend in ("sdpa", "reference"):
        leaf = qkv.clone().requires_grad_()
        output = packed_attention(leaf, packing, backend)
        exact_leaf = qkv.double().requires_grad_()
        exact = one_by_one(exact_leaf, packing)
        # Sums of up to nine numbers of order 1 in float32.
        torch.testing.assert_close(output.double(), exact, rtol=1e-5, atol=1e-5)
        (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
        (expected,) = torch.autograd.grad(exact.square().sum(), exact_leaf)
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(packing=packings)
def test_first_tokens_alone_look_at_their_whole_sequence(packing: Packing) -> None:
    q, k, v = draw(packing).unbind(1)
    expected = packing.first_tokens(one_by_one(torch.stack((q, k, v), dim=1), packing))
    for backend in ("sdpa", "reference"):
        output = attention(packing.first_tokens(q), k, v, packing.of_first_tokens, packing, backend)
        torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(packing=packings, seed=st.integers(0, 99))
def test_chosen_sequences_keep_their_tokens(packing: Packing, seed: int) -> None:
    chosen = torch.rand(packing.sequences, generator=torch.Generator().manual_seed(seed)) < 0.5
    rest, tokens = packing.chosen(chosen)
    owners = torch.repeat_interleave(torch.arange(packing.sequences), torch.tensor(packing.lengths))
    assert torch.equal(tokens, torch.arange(packing.tokens)[chosen[owners]])
    assert rest.lengths == [length for length, mine in zip(packing.lengths, chosen, strict=True) if mine]


def test_rows_are_those_of_the_matrix() -> None:
    packing = Packing(((3, 7),))
    q, k, _ = packing.split(draw(packing))[0].unbind(2)
    whole = attention_rows(q, k)
    torch.testing.assert_close(whole.sum(dim=-1), torch.ones(3, 2, 7))
    torch.testing.assert_close(attention_rows(q[:, 2:4], k), whole[:, :, 2:4])


def test_cpus_take_sdpa_and_gpus_what_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    obstacles = {"xformers": "", "varlen": ""}
    monkeypatch.setattr(module, "why_not", lambda backend, dtype: obstacles[backend])
    module._chosen.cache_clear()
    assert choose("cpu", torch.bfloat16) == ("sdpa", "the device is a CPU")
    assert choose("cuda", torch.float32)[0] == "sdpa"
    assert choose("cuda", torch.bfloat16) == ("xformers", "all crops in one call")
    module._chosen.cache_clear()
    obstacles["xformers"] = "xformers cannot be used"
    assert choose("cuda", torch.bfloat16) == ("varlen", "xformers cannot be used")
    module._chosen.cache_clear()
    obstacles["varlen"] = "varlen neither"
    assert choose("cuda", torch.bfloat16) == ("sdpa", "xformers cannot be used; varlen neither")
    module._chosen.cache_clear()


def test_unknown_backends_are_named() -> None:
    with pytest.raises(ValueError, match="one of xformers, varlen, sdpa, reference, not 'flash'"):
        packed_attention(draw(Packing(((1, 2),))), Packing(((1, 2),)), "flash")


def test_xformers_is_called_as_its_own_operators_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inputs pass the checks that it makes before it looks for an operator; none runs on CPUs."""
    ops = pytest.importorskip("xformers.ops")
    from xformers.ops.fmha.common import Inputs

    packing = Packing(((2, 5), (3, 2)))
    qkv = draw(packing).bfloat16()
    seen: list[Any] = []

    def fake(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any) -> Tensor:
        Inputs(q, k, v, attn_bias).validate_inputs()
        seen.append(attn_bias)
        masked = attn_bias.materialize((q.shape[1], k.shape[1]))
        weights = (torch.einsum("bqhd,bkhd->bhqk", q, k).float() * q.shape[-1] ** -0.5 + masked).softmax(dim=-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v.float())

    monkeypatch.setattr(ops, "memory_efficient_attention", fake)
    output = packed_attention(qkv, packing, "xformers")
    torch.testing.assert_close(output.double(), one_by_one(qkv, packing), rtol=1e-2, atol=1e-2)
    packed_attention(qkv, packing, "xformers")
    assert seen[0] is seen[1], "the mask is kept"
    q, k, v = qkv.unbind(1)
    first = attention(packing.first_tokens(q), k, v, packing.of_first_tokens, packing, "xformers")
    torch.testing.assert_close(first, packing.first_tokens(output))


def test_varlen_is_called_by_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    import inspect

    signature, packing = inspect.signature(varlen.varlen_attn), Packing(((2, 5), (3, 2)))

    def fake(*args: Any, **kwargs: Any) -> Tensor:
        given = signature.bind(*args, **kwargs).arguments
        starts = given["cu_seq_q"]
        assert starts.dtype == torch.int32 and starts.tolist() == [0, 5, 10, 12, 14, 16]
        assert given["cu_seq_k"] is starts and given["max_q"] == given["max_k"] == 5
        lengths = starts.diff().tolist()
        qkv = torch.stack((given["query"], given["key"], given["value"]), dim=1)
        return one_by_one(qkv, Packing(tuple((1, length) for length in lengths)))

    fake_module = ModuleType("torch.nn.attention.varlen")
    fake_module.varlen_attn = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", fake_module)
    qkv = draw(packing)
    torch.testing.assert_close(packed_attention(qkv, packing, "varlen"), one_by_one(qkv, packing))


def test_varlen_is_told_of_fewer_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    packing = Packing(((2, 5), (3, 2)))
    seen: list[Any] = []

    def fake(q: Tensor, k: Tensor, v: Tensor, *others: Any) -> Tensor:
        seen.extend(others)
        return q

    fake_module = ModuleType("torch.nn.attention.varlen")
    fake_module.varlen_attn = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", fake_module)
    q, k, v = draw(packing).unbind(1)
    attention(packing.first_tokens(q), k, v, packing.of_first_tokens, packing, "varlen")
    assert seen[0].tolist() == [0, 1, 2, 3, 4, 5] and seen[1].tolist() == [0, 5, 10, 12, 14, 16] and seen[2:] == [1, 5]
