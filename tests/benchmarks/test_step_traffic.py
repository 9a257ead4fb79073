"""What counts a whole training step, the stand-ins that it counts with, and the figures that come of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is made for Linux only")
pytest.importorskip("xformers", reason="xformers has no wheels for this machine")

from benchmarks import roofline, step_traffic
from benchmarks.gpu_proofs import meta_attention, meta_layer_norm, pytorch_traffic
from benchmarks.gpu_proofs.concrete_case import Case
from benchmarks.gpu_proofs.dispatch_counter import Count, total
from benchmarks.gpu_proofs.meta_autocast import MetaAutocast
from benchmarks.gpu_proofs.original_backbone import OriginalBackbone, attended
from benchmarks.gpu_proofs.pytorch_traffic import numbers
from benchmarks.gpu_proofs.step_counter import Operation, StepCounter, addresses
from benchmarks.gpu_proofs.step_on_meta import Kernels, original_step, our_step
from fastdino import VisionTransformer, attention
from fastdino.attention import Packing
from fastdino.models.block import Attention, Block
from fastdino.train.fused_update import FusedUpdate

META = torch.device("meta")
CASE = Case(images=4, local_crops=3, prototypes=4096, crop_sizes=(64, 32))
WIDTH, DEPTH, PATCH = 64, 2, 16
KERNELS = Kernels(Count(100, 50, 5), Count(2000, 1000, 4), Count(30000, 20000, 2))


def small_backbone(*_: Any, **settings: Any) -> VisionTransformer:
    return VisionTransformer(
        img_size=CASE.crop_sizes[0],
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=2,
        drop_path_rate=settings.get("drop_path_rate", 0.0),
    )


@pytest.fixture(scope="module")
def step() -> step_traffic.Row:
    with mock.patch("fastdino.train.build.build_backbone", small_backbone):
        return step_traffic.Row("step", original_step(CASE), our_step(CASE, KERNELS))


# The stand-ins.


class Names(TorchDispatchMode):
    """Operations that compute, with the type and shape of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, torch.dtype, torch.Size]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) else result
        if isinstance(first, Tensor):
            self.seen.append((str(func), first.dtype, first.shape))
        return result


class EveryLayer(nn.Module):
    """What a step has under autocast: the original's network, and the operations of ours that it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = OriginalBackbone(small_backbone(drop_path_rate=0.1))
        self.prototypes = nn.utils.weight_norm(nn.Linear(WIDTH, 24, bias=False))

    def forward(self, large: Tensor, small: Tensor) -> Tensor:
        features = torch.cat([self.backbone(large), self.backbone(small)])
        narrow = self.backbone.backbone.blocks[0].mlp.fc1(features)
        torch.stack((features.mean(), narrow.mean()))
        return self.prototypes(F.normalize(features.bfloat16(), dim=-1)).log_softmax(dim=-1)


@pytest.mark.filterwarnings("ignore")
def test_casts_are_those_of_a_gpus_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.cuda.is_built():
        pytest.skip("this build of torch knows no GPU, not even a made-up one")

    def seen(device: str, autocast: Callable[[], Any]) -> list[tuple[str, torch.dtype, torch.Size]]:
        with torch.device(device):
            network = EveryLayer()
            large, small = (torch.empty(2, 3, size, size) for size in CASE.crop_sizes)
            with autocast(), Names() as names:
                network(large, small)
        return names.seen

    # It looks at the numbers it has drawn.
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    with FakeTensorMode():
        expected = seen("cuda", lambda: torch.autocast("cuda", torch.bfloat16))
    assert sum("_to_copy" in name for name, *_ in expected) > 40
    # Of one call's arguments either may be the first.
    assert Counter(seen("meta", MetaAutocast)) == Counter(expected)


def test_attention_counts_its_four_kernels() -> None:
    heads, d, lengths = 3, 8, [5, 5, 2]
    values = heads * d * sum(lengths)
    rows = 4 * heads * sum(lengths)
    qkv = numbers(1, sum(lengths), 3, heads, d, dtype=torch.bfloat16, requires_grad=True)
    starts = [0, *accumulate(lengths)]
    mask = mock.Mock(**{"q_seqinfo.seqstart_py": starts, "k_seqinfo.seqstart_py": starts})
    with StepCounter() as counter:
        output = meta_attention.memory_efficient_attention(*qkv.unbind(2), mask)  # type: ignore[call-arg]
        output.backward(torch.empty_like(output))
    scores = heads * d * (25 + 25 + 4)
    assert [(x.moved, x.flops) for x in counter.operations] == [
        (Count(6 * values, 2 * values + rows, 1), 4 * scores),
        (Count(4 * values, 4 * values + rows, 1), 0),
        # Queries, keys, values, the output's gradient and two numbers a row; the buffer is added to.
        (Count(8 * values + 2 * rows + 4 * values + 4 * values, 4 * values + 4 * values, 1), 10 * scores),
        (Count(4 * values + 2 * values, 2 * values, 1), 0),
        (Count(6 * values, 6 * values, 1), 0),
    ]


def test_addresses_tell_tensors_apart() -> None:
    x, y = numbers(100), numbers(100)
    with addresses():
        assert x.data_ptr() == x.view(10, 10).data_ptr() != y.data_ptr()
        assert x[3:].data_ptr() == x.data_ptr() + 12
        assert x.data_ptr() % 16 == 0
        real = torch.zeros(3)
        assert real[1:].data_ptr() == real.data_ptr() + 4


# A block, worked by hand.


def operations(work: Callable[[], object]) -> list[tuple[str, int]]:
    with StepCounter() as counter:
        work()
    return [(x.name, x.moved.bytes) for x in counter.operations]


def narrow_block() -> Block:
    """Its products' weights in bfloat16, as a step with kernels has them."""
    with META:
        block = Block(WIDTH, 2, 4.0, True, 0.0, lambda dim: nn.LayerNorm(dim))
    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        layer.bfloat16()
    return block


def product(tokens: int, inputs: int, outputs: int) -> int:
    """Bytes of input, weight, bias and output."""
    return 2 * (tokens * inputs + inputs * outputs + outputs + tokens * outputs)


@pytest.mark.parametrize("implementation", ["torch", "triton"])
def test_our_block_forward(implementation: str) -> None:
    packing = Packing(((2, 5), (3, 3)))
    t, c = packing.tokens, WIDTH
    x, block = numbers(t, c), narrow_block()
    block.implementation = implementation
    beside = 2 * 4 * c + 2 * 4 * t
    norm = {
        "torch": [("native_layer_norm", 2 * 4 * t * c + beside), ("_to_copy", (4 + 2) * t * c)],
        "triton": [("fastdino_counted::layer_norm", (4 + 2) * t * c + beside)],
    }[implementation]
    residual = ("add", (4 + 2 + 4) * t * c)

    def forward() -> None:
        with addresses(), MetaAutocast():
            block(x, packing)

    with (
        mock.patch.object(attention, "choose", return_value=("xformers", "")),
        mock.patch("xformers.ops.memory_efficient_attention", meta_attention.memory_efficient_attention),
        mock.patch("fastdino.models.block.dtype_of_products", return_value=torch.bfloat16),
        mock.patch("fastdino.kernels.layer_norm.forward", meta_layer_norm.forward),
    ):
        counted = operations(forward)
    assert counted == [
        *norm,
        ("addmm", product(t, c, 3 * c)),
        ("fastdino_counted::attention", 2 * 4 * t * c + 4 * 2 * t),
        ("addmm", product(t, c, c)),
        residual,
        *norm,
        ("addmm", product(t, c, 4 * c)),
        ("gelu", 2 * 2 * t * 4 * c),
        ("addmm", product(t, 4 * c, c)),
        residual,
    ]


def test_the_originals_attention_forward() -> None:
    b, n, c, heads = 3, 5, WIDTH, 2
    with META:
        layer = Attention(c, heads, True).bfloat16()
    x, matrix = numbers(b, n, c, dtype=torch.bfloat16), b * heads * n * n
    rearranged = ("clone", 2 * 2 * b * n * c)

    def forward() -> None:
        with MetaAutocast():
            attended(layer, x)

    assert operations(forward) == [
        ("addmm", product(b * n, c, 3 * c)),
        rearranged,
        rearranged,
        ("bmm", 2 * 2 * b * n * c + 2 * matrix),
        ("mul", 2 * 2 * matrix),
        ("_to_copy", (2 + 4) * matrix),
        ("_softmax", 2 * 4 * matrix),
        ("_to_copy", (4 + 2) * matrix),
        rearranged,
        ("bmm", 2 * matrix + 2 * 2 * b * n * c),
        rearranged,
        ("addmm", product(b * n, c, c)),
    ]


# Whole steps.


def flops(products_of_attention: int, blocks: Callable[[list[int], int, int], int]) -> int:
    """Two for each multiplication: forward of both networks, and twice the student's backward but for the pixels'."""
    large, small = (1 + (size // PATCH) ** 2 for size in CASE.crop_sizes)
    every = [large] * 2 + [small] * CASE.local_crops

    def embedding(lengths: list[int], times: int) -> int:
        return times * 3 * PATCH**2 * WIDTH * sum(n - 1 for n in lengths)

    head = WIDTH * 2048 + 2048**2 + 2048 * 256 + 256 * CASE.prototypes
    teacher = blocks([large] * 2, 1, 2) + embedding([large] * 2, 1) + 2 * head
    student = blocks(every, 3, products_of_attention) + embedding(every, 2) + 3 * CASE.crops * head
    return 2 * CASE.images * (teacher + student)


def whole_blocks(lengths: list[int], times: int, products_of_attention: int, depth: int = DEPTH) -> int:
    """Multiplications for one picture's crops: 12 C^2 a token, and attention's matrices."""
    return depth * WIDTH * sum(times * 12 * WIDTH * n + products_of_attention * n * n for n in lengths)


def blocks_of_which_the_last_gives_first_tokens(lengths: list[int], times: int, products_of_attention: int) -> int:
    """There keys and values of all tokens are computed, and one token's everything else."""
    last = WIDTH * sum(times * (2 * n + 10) * WIDTH + products_of_attention * n for n in lengths)
    return whole_blocks(lengths, times, products_of_attention, DEPTH - 1) + last


def test_both_steps_take_the_operations_of_the_formula(step: step_traffic.Row) -> None:
    assert sum(x.flops for x in step.original) == flops(6, whole_blocks)
    assert sum(x.flops for x in step.ours) == flops(7, blocks_of_which_the_last_gives_first_tokens)


def parts(mine: list[Operation]) -> dict[str, Count]:
    return {part: total(x.moved for x in mine if x.part == part) for part in step_traffic.PARTS}


def test_the_originals_parts_are_those_counted_alone(step: step_traffic.Row) -> None:
    counted = parts(step.original)
    assert set(counted) == {x.part for x in step.original}
    assert counted["loss"] == pytorch_traffic.eager_loss(CASE)


def test_ours_waits_for_nothing_and_has_the_kernels_counts(step: step_traffic.Row) -> None:
    counted = parts(step.ours)
    assert set(counted) == {x.part for x in step.ours}
    assert sum(of.waits for of in counted.values()) == 0
    assert counted["loss"] == KERNELS.loss
    copies = total([Count(0, sum(torch.Size(shape).numel() for shape in CASE.pixel_shapes), CASE.crops)])
    assert counted["crops"] == total([KERNELS.normalisation, copies])
    # Beside the kernels: a step's numbers and the gradients' addresses, sent to the device, and a cast for the center.
    # Beside the tail: the look whether loss and gradients are numbers, whatever the number of parameters.
    assert counted["update"].launches <= KERNELS.tail.launches + 21
    assert [x.moved for x in step.ours if x.name == "adamw_ema_"] == [KERNELS.tail]


def test_weights_are_cast_once_a_network_by_the_original_and_never_by_ours(step: step_traffic.Row) -> None:
    layers = 4 * DEPTH + 1 + 3
    weights_and_biases = 2 * layers + 1

    def casts(mine: list[Operation], part: str) -> int:
        return sum(x.name == "_to_copy" for x in mine if x.part == part)

    # Beside weights, for each resolution: pixels, and a block's two norms and both sides of its softmax; features and
    # bottlenecks on their way into products.
    of_pass = 1 + 2 * DEPTH + 2 * DEPTH
    assert casts(step.original, "teacher") == weights_and_biases + of_pass + 2
    assert casts(step.original, "student") == weights_and_biases + 2 * of_pass + 2
    assert casts(step.ours, "student") == 2


def test_ours_needs_fewer_bytes_and_launches_in_every_pass(step: step_traffic.Row) -> None:
    original, ours = parts(step.original), parts(step.ours)
    for part in ("teacher", "student", "loss", "backward", "update"):
        assert ours[part].bytes < original[part].bytes
        assert ours[part].launches < original[part].launches


def test_stand_ins_are_gone_after_a_step(step: step_traffic.Row) -> None:
    assert FusedUpdate.finish.__name__ == "finish"
    assert attention.choose("cpu", torch.bfloat16)[0] == "sdpa"


# The model and its tables.


def test_a_part_takes_what_its_operations_or_their_launches_take() -> None:
    gpu = roofline.Gpu("", bandwidth=1e12, rate=1e14, source="")
    bytes_bound, products = (
        Operation("student", "add", Count(10**7, 0, 1)),
        Operation("student", "mm", Count(1, 1, 1), 10**9),
    )
    assert step_traffic.seconds([bytes_bound, products], gpu) == pytest.approx(2e-5, rel=1e-12)
    # Ten launches take longer than what they do, in this part alone.
    small = [Operation("update", "mul", Count(1, 1, 1))] * 10
    assert step_traffic.seconds([bytes_bound, products, *small], gpu) == pytest.approx(7e-5, rel=1e-12)


def test_the_papers_speed_is_that_of_its_readme() -> None:
    of_100_epochs = 1_281_167 * 100 / (1.75 * 86_400 * 8)
    assert abs(step_traffic.PAPER - of_100_epochs) < 0.02 * of_100_epochs


@pytest.fixture
def output(tmp_path: Path, step: step_traffic.Row) -> Iterator[Path]:
    path = tmp_path / "written.json"
    with (
        mock.patch("sys.argv", ["script", "--output", str(path)]),
        mock.patch.object(step_traffic, "original_step", return_value=step.original),
        mock.patch.object(step_traffic, "our_step", return_value=step.ours),
        mock.patch.object(step_traffic, "kernels", return_value=KERNELS),
    ):
        yield path


def test_tables_and_json(output: Path, step: step_traffic.Row, capsys: pytest.CaptureFixture[str]) -> None:
    step_traffic.main()
    printed, written = capsys.readouterr().out, json.loads(output.read_text())
    *of_parts, whole = written["parts"]
    assert [row["name"] for row in of_parts] == list(step_traffic.PARTS)
    for column, mine in (("original", step.original), ("ours", step.ours)):
        assert (
            whole[column]["bytes"]
            == total(x.moved for x in mine).bytes
            == sum(row[column]["bytes"] for row in of_parts)
        )
        kinds = written["kinds in teacher, student, backward"]
        assert sum(row[column]["launches"] for row in kinds) == sum(
            row[column]["launches"] for row in of_parts if row["name"] in step_traffic.NETWORKS
        )
    assert "Modelled, not measured" in printed
    assert f"{whole['ours']['bytes'] / 2**20:,.0f}" in printed
    assert all(gpu["source"] for gpu in written["gpus"])
