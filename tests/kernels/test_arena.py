"""Flat buffers that modules and optimisers do not notice, and what breaks them is noticed."""

from __future__ import annotations

import copy
import io
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from fastdino.kernels.arena import Arena
from fastdino.kernels.arena_layout import CHUNK, MOST_CHUNKS, QUAD, blocks_of_rows, lay_out
from fastdino.optim import get_params_groups
from tests.kernels.arena_cases import (
    ROWS,
    Network,
    assert_rounded_to_bfloat16,
    expected_shadow,
    make_arena,
    modules,
    values,
)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_parameters_become_views_and_keep_their_values() -> None:
    student, teacher = Network(seed=0), Network(seed=1)
    before = values(student), values(teacher)
    objects = list(student.parameters())
    arena = Arena(student, teacher)
    assert all(a is b for a, b in zip(objects, student.parameters(), strict=True))
    assert same(values(student), before[0]) and same(values(teacher), before[1])
    arena.student.mul_(2)
    arena.teacher.zero_()
    assert torch.equal(student.weight.detach(), 2 * before[0]["weight"])
    assert not teacher.last_layer.weight_v.any()
    assert student.weight.requires_grad and not student.last_layer.weight_g.requires_grad


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.one_of(st.integers(0, 3000), st.integers(10**6, 10**7)), min_size=1, max_size=6),
    width=st.sampled_from([256, 192, 6, 1, 511, 1024, 4096]),
)
def test_tables_cover_every_value_once(counts: list[int], width: int) -> None:
    layout = lay_out(counts, 0, blocks_of_rows(width), torch.device("cpu"))
    size = layout.shape.size
    blocks, chunks = layout.blocks.tolist(), layout.chunks.tolist()
    assert len(blocks) * size == layout.size
    for i, (count, offset, (first_block, first_chunk, its_chunks, normalised)) in enumerate(
        zip(counts, layout.offsets, layout.tensors.tolist(), strict=True)
    ):
        quads = -(-count // QUAD)
        of_tensor = [q for tensor, q in blocks if tensor == i]
        assert offset == first_block * size and offset * 2 % 16 == 0
        assert sum(of_tensor) == quads and all(0 <= q * QUAD <= size for q in of_tensor)
        # Only the matrix with normalised rows has room behind it, for up to seven rows.
        assert (0 not in of_tensor) or (i == 0 and size * len(of_tensor) < count + 8 * width + size)
        assert i > 0 or size * len(of_tensor) >= -(-count // (8 * width)) * 8 * width
        assert [tensor for tensor, _ in blocks[first_block : first_block + len(of_tensor)]] == [i] * len(of_tensor)
        mine = chunks[first_chunk : first_chunk + its_chunks]
        assert its_chunks <= MOST_CHUNKS and normalised == (i == 0)
        assert [tensor for tensor, _, _ in mine] == [i] * its_chunks
        starts = [start for _, start, _ in mine]
        ends = [start + length for _, start, length in mine]
        assert [*starts, quads] == [0, *ends]
        assert all(length * QUAD >= CHUNK for _, _, length in mine[:-1])


@pytest.mark.parametrize("width", [256, 192, 6, 5, 511, 1024, 4096])
def test_blocks_hold_whole_rows_and_start_at_16_bytes(width: int) -> None:
    shape = blocks_of_rows(width)
    assert shape.size % shape.width == 0 and shape.size * 2 % 16 == 0
    assert shape.padded_width >= width and shape.padded_width & (shape.padded_width - 1) == 0
    assert shape.rows & (shape.rows - 1) == 0


@pytest.mark.parametrize("width", [4097, 513, 8192])
def test_rows_that_are_too_wide_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"rows of {width} values are too wide"):
        blocks_of_rows(width)


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("width", [256, 6])
def test_shadows_are_there_from_the_start_and_refreshed_on_demand(width: int, refresh: bool) -> None:
    arena = make_arena(width=width)
    if refresh:
        for module in modules(arena):
            nn.init.uniform_(module.weight)
            nn.init.uniform_(module.last_layer.weight_v)
        arena.refresh_shadows()
    for module, shadow in zip(modules(arena), (arena.student_shadow, arena.teacher_shadow), strict=True):
        for actual, exact in zip(arena.views(shadow), expected_shadow(values(module)), strict=True):
            assert_rounded_to_bfloat16(actual, exact)


@pytest.mark.parametrize(("rows", "padded"), [(37, 40), (40, 40), (1, 8)])
def test_padded_rows_are_zero_in_every_buffer(rows: int, padded: int) -> None:
    arena = make_arena(rows=rows)
    for flat, module in ((arena.student, modules(arena)[0]), (arena.teacher, modules(arena)[1])):
        whole = arena.padded_rows(flat)
        assert whole.shape == (padded, 256) and whole.data_ptr() == module.last_layer.weight_v.data_ptr()
        assert torch.equal(whole[:rows], module.last_layer.weight_v) and not whole[rows:].any()
    assert arena.student_shadow is not None and not arena.padded_rows(arena.student_shadow)[rows:].any()


def test_shadows_are_for_those_who_ask() -> None:
    assert make_arena(shadows=False).student_shadow is None


def test_checkpoints_pass_through_files() -> None:
    arena = make_arena()
    student, teacher = modules(arena)
    file = io.BytesIO()
    torch.save({"student": student.state_dict(), "teacher": teacher.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    other = make_arena()
    other.student.zero_()
    modules(other)[0].load_state_dict(loaded["student"])
    other.check()
    assert torch.equal(other.student, arena.student)
    plain = Network()
    plain.load_state_dict(loaded["teacher"])
    assert same(values(plain), values(teacher))


BREAKAGES: list[tuple[str, Callable[[nn.Module], Any]]] = [
    ("cast", lambda module: module.double()),
    ("replaced data", lambda module: setattr(module.bias, "data", module.bias.data.clone())),
    ("replaced parameter", lambda module: setattr(module, "weight", nn.Parameter(module.weight.data))),
    ("new parameter", lambda module: setattr(module, "another", nn.Parameter(torch.zeros(3)))),
    ("replaced module", lambda module: setattr(module, "last_layer", nn.Linear(4, 4))),
    ("lost parameter", lambda module: delattr(module, "weight")),
]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("_", "breaks"), BREAKAGES)
def test_what_has_left_the_arena_is_noticed(_: str, breaks: Callable[[nn.Module], Any], which: int) -> None:
    arena = make_arena()
    arena.check()
    breaks(modules(arena)[which])
    with pytest.raises(ValueError, match=f"the {('student', 'teacher')[which]}'s parameters were moved or replaced"):
        arena.check()


def test_loading_a_state_dict_is_no_breakage() -> None:
    arena = make_arena()
    modules(arena)[0].load_state_dict(Network(seed=7).state_dict())
    arena.check()


def test_networks_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many and of equal shapes"):
        Arena(Network(rows=3), Network(rows=4))
    with pytest.raises(ValueError, match="must have parameters"):
        Arena(nn.Identity(), nn.Identity())
    with pytest.raises(ValueError, match="float32 and on one device"):
        Arena(Network(), Network().double())
    with pytest.raises(ValueError, match="float32 and on one device"):
        Arena(Network().half(), Network().half())
    with pytest.raises(ValueError, match="no parameter 'nonsense'"):
        Arena(Network(), Network(), normalised_rows="nonsense")
    with pytest.raises(ValueError, match="bias is no matrix"):
        Arena(Network(), Network(), normalised_rows="bias")


def stepped(optimizer: AdamW, network: Network, steps: int = 2, freeze: bool = False) -> None:
    """PyTorch's own steps, the arena's kernels not being the matter here."""
    generator = torch.Generator().manual_seed(9)
    for _ in range(steps):
        for name, p in network.named_parameters():
            if p.requires_grad:
                gradient = torch.randn(p.shape, generator=generator)
                p.grad = None if freeze and name == ROWS else gradient
        optimizer.step()


def attached(arena: Arena) -> AdamW:
    optimizer = AdamW(get_params_groups(modules(arena)[0]))
    arena.attach(optimizer)
    return optimizer


def assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()
    for index, state in a["state"].items():
        assert state.keys() == b["state"][index].keys()
        for name, value in state.items():
            assert torch.equal(value, b["state"][index][name])


@pytest.mark.parametrize("freeze", [False, True])
def test_the_optimisers_state_lies_in_the_arena_in_torchs_format(freeze: bool) -> None:
    arena = make_arena()
    optimizer = attached(arena)
    plain = Network(seed=0)
    expected = AdamW(get_params_groups(plain))
    stepped(optimizer, modules(arena)[0], freeze=freeze)
    stepped(expected, plain, freeze=freeze)
    assert_same_state(optimizer.state_dict(), expected.state_dict())
    assert same(values(modules(arena)[0]), values(plain))
    assert arena.exp_avg is not None and arena.exp_avg.abs().sum() > 0
    # In the order of the parameters; weight_g is frozen.
    assert arena.steps.tolist() == [2, 2, 2, 2, 2, 0, 0 if freeze else 2]


@pytest.mark.parametrize("freeze", [False, True])
def test_a_state_of_torch_is_copied_into_the_arena(freeze: bool) -> None:
    plain = Network(seed=0)
    original = AdamW(get_params_groups(plain), lr=0.1)
    stepped(original, plain, freeze=freeze)
    arena = make_arena()
    optimizer = attached(arena)
    stepped(optimizer, modules(arena)[0], steps=5)
    optimizer.load_state_dict(copy.deepcopy(original.state_dict()))
    assert_same_state(optimizer.state_dict(), original.state_dict())
    assert arena.steps.tolist() == [2, 2, 2, 2, 2, 0, 0 if freeze else 2]
    stepped(optimizer, modules(arena)[0], steps=1)
    assert arena.steps.tolist() == [3, 3, 3, 3, 3, 0, 1 if freeze else 3]
    optimizer.load_state_dict(optimizer.state_dict())
    assert arena.steps.tolist() == [3, 3, 3, 3, 3, 0, 1 if freeze else 3]


def test_weight_decay_is_for_the_groups_that_have_it() -> None:
    arena = make_arena()
    attached(arena)
    assert arena.decays.tolist() == [0, 0, 0, 1, 1, 0, 1]


def test_other_optimisers_are_refused() -> None:
    arena = make_arena()
    parameters = list(modules(arena)[0].parameters())
    for optimizer in (SGD(parameters), AdamW(parameters, amsgrad=True), AdamW(parameters, maximize=True)):
        with pytest.raises(ValueError, match=r"torch\.optim\.AdamW without amsgrad and maximize only"):
            arena.attach(optimizer)
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], "eps": 1e-3}]
    with pytest.raises(ValueError, match="same betas and eps"):
        arena.attach(AdamW(groups))
    with pytest.raises(ValueError, match="none of the student's"):
        arena.attach(AdamW(modules(arena)[1].parameters()))


def backward(arena: Arena) -> None:
    torch.stack([(p * p).sum() for p in modules(arena)[0].parameters() if p.requires_grad]).sum().backward()


def gathered(arena: Arena) -> list[int]:
    return [int(address != 0) for address in arena.gradient_addresses.tolist()]


def test_gradients_of_autograd_are_used_where_they_are() -> None:
    arena = make_arena()
    backward(arena)
    arena.gather_gradients()
    assert gathered(arena) == [1, 1, 1, 1, 1, 0, 1]
    student = modules(arena)[0]
    addresses = arena.gradient_addresses.tolist()
    assert addresses[4] == student.token.grad.data_ptr() and addresses[6] == student.last_layer.weight_v.grad.data_ptr()
    # Three values are no whole QUAD: a copy is padded.
    assert addresses[1] != student.three.grad.data_ptr()
    assert torch.equal(arena.gradients()[1][:3], student.three.grad) and arena.gradients()[1][3] == 0


def test_gradients_in_the_arena_stay_where_they_are() -> None:
    arena = make_arena()
    arena.zero_grad()
    trainable = [p for p in modules(arena)[0].parameters() if p.requires_grad]
    pointers = [p.grad.data_ptr() for p in trainable]
    for _ in range(2):
        arena.zero_grad()
        backward(arena)
        arena.gather_gradients()
        assert [a for a in arena.gradient_addresses.tolist() if a] == pointers
        for gradient, p in zip(arena.gradients(), trainable, strict=True):
            assert torch.equal(gradient, 2 * p.detach())


def test_released_gradients_make_room_and_keep_their_addresses() -> None:
    arena = make_arena()
    backward(arena)
    arena.gather_gradients()
    addresses = arena.gradient_addresses.clone()
    kept = weakref.ref(arena.gradients()[1])
    arena.release_gradients()
    assert kept() is None and arena.gradients() == []
    arena.gather_gradients()
    assert len(arena.gradients()) == 6 and torch.equal(arena.gradient_addresses[4:], addresses[4:])


def test_a_dropped_gradient_is_a_zero_in_the_table() -> None:
    arena = make_arena()
    backward(arena)
    modules(arena)[0].last_layer.weight_v.grad = None
    arena.gather_gradients()
    assert gathered(arena) == [1, 1, 1, 1, 1, 0, 0]


def test_gradients_may_be_given() -> None:
    arena = make_arena()
    gradients = [p.detach().bfloat16() if p.requires_grad else None for p in modules(arena)[0].parameters()]
    gradients[4] = torch.ones(1, 1, 64)
    arena.gather_gradients(gradients)
    assert gathered(arena) == [1, 1, 1, 1, 1, 0, 1]
    assert [address % 2 for address in arena.gradient_addresses.tolist()] == [1, 1, 1, 1, 0, 0, 1]


def test_gradients_that_do_not_fit_are_refused() -> None:
    arena = make_arena()
    parameters = list(modules(arena)[0].parameters())
    right: list[Tensor | None] = [torch.zeros_like(p) for p in parameters]
    with pytest.raises(ValueError, match="6 gradients for 7 parameters"):
        arena.gather_gradients(right[1:])
    with pytest.raises(ValueError, match="the shapes and the device"):
        arena.gather_gradients([torch.zeros(2), *right[1:]])
    for wrong in (torch.zeros(1).half(), torch.zeros(1).double()):
        with pytest.raises(ValueError, match="must be float32 or bfloat16"):
            arena.gather_gradients([wrong, *right[1:]])
    modules(arena)[0].double()
    with pytest.raises(ValueError, match="moved or replaced"):
        arena.gather_gradients(right)
