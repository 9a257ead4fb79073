"""What counts PyTorch's operations and extrapolates our kernels', and the figures that come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is made for Linux only")

from benchmarks import roofline, traffic
from benchmarks.gpu_proofs import kernel_traffic
from benchmarks.gpu_proofs.concrete_case import CASE, Case
from benchmarks.gpu_proofs.dispatch_counter import Count, DispatchCounter, total
from benchmarks.gpu_proofs.extrapolation import extrapolate
from benchmarks.gpu_proofs.pytorch_traffic import count, numbers
from fastdino.kernels.dino_loss import dino_loss_and_gradient_

X, Y = numbers(6, 4), numbers(6, 4)
SIZE = 6 * 4 * 4
NARROW = numbers(6, 4, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: X + Y, Count(2 * SIZE, SIZE, 1)),
        (lambda: X * X, Count(SIZE, SIZE, 1)),
        (lambda: X.mul_(2), Count(SIZE, SIZE, 1)),
        (lambda: X.add_(Y), Count(2 * SIZE, SIZE, 1)),
        (lambda: X.copy_(Y), Count(SIZE, SIZE, 1)),
        (lambda: X.zero_(), Count(0, SIZE, 1)),
        (lambda: torch.zeros_like(X), Count(0, SIZE, 1)),
        (lambda: X.bfloat16(), Count(SIZE, SIZE // 2, 1)),
        (lambda: X - NARROW, Count(SIZE + SIZE // 2, SIZE, 1)),
        (lambda: X.sum(dim=1), Count(SIZE, 6 * 4, 1)),
        (lambda: torch.cat((X, Y)), Count(2 * SIZE, 2 * SIZE, 1)),
        (lambda: torch.add(X, Y, out=numbers(6, 4)), Count(2 * SIZE, SIZE, 1)),
        # A row of four numbers, however often it is repeated.
        (lambda: X + numbers(4).expand(6, 4), Count(SIZE + 16, SIZE, 1)),
        (lambda: (X.view(3, 8), X.T, X.unbind(), X[1:].detach(), X.unsqueeze(0).expand(5, 6, 4)), Count()),
        (lambda: (torch.empty_like(X), X.new_empty(9)), Count()),
        (lambda: torch._foreach_lerp_([X, X.view(-1)], [Y, Y.view(-1)], 0.5), Count(4 * SIZE, 2 * SIZE, 1)),
        # No list of factors has the shapes of what it multiplies: PyTorch goes tensor by tensor.
        (lambda: torch._foreach_mul_([X, Y], [numbers(), numbers()]), Count(2 * SIZE + 8, 2 * SIZE, 2)),
        (lambda: torch._foreach_copy_([X], [Y]), Count(SIZE, SIZE, 1)),
        (lambda: X.sum().item(), Count(SIZE, 4, 1, 1)),
        (lambda: bool(X.sum() < 1), Count(SIZE + 4, 4 + 1, 2, 1)),
        (lambda: torch.ones(3) + 1, Count()),
        (lambda: torch.ones(()).item(), Count()),
    ],
)
def test_operations(work: Callable[[], object], expected: Count) -> None:
    assert count(work) == expected


def test_fused_adamw_leaves_gradients_alone() -> None:
    """28 bytes a parameter, and the step's number read."""
    lists = [[numbers(100)] for _ in range(4)]
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "eps": 1e-8}
    counted = count(
        lambda: torch._fused_adamw_(*lists, [], [numbers()], **settings, amsgrad=False, maximize=False)  # type: ignore[call-overload]
    )
    assert counted == Count(1600 + 4, 1200, 1)


def test_the_backward_pass_counts_too() -> None:
    leaf = numbers(6, 4, requires_grad=True)
    # Two factors read and their product written, and the same once more with the gradient.
    assert count(lambda: torch.autograd.grad(leaf * Y, leaf, X)) == Count(4 * SIZE, 2 * SIZE, 2)


def test_real_tensors_count_like_those_without_memory() -> None:
    def step(device: str) -> Count:
        x = torch.ones(6, 40, device=device, requires_grad=True)
        with DispatchCounter(device) as counter:
            torch.autograd.grad(F.log_softmax(x * 2, dim=-1).mean(), x)
        return counter.count

    assert step("cpu") == step("meta")


def test_extrapolation_is_exact_or_refused() -> None:
    cases = [[1, 1], [2, 1], [5, 1]]
    assert extrapolate(cases, [10, 13, 22], [10**12, 1]) == 3 * 10**12 + 7
    with pytest.raises(ValueError, match="no linear form"):
        extrapolate(cases, [10, 13, 23], [7, 1])
    with pytest.raises(ValueError, match="do not tell feature 1 from those before it"):
        extrapolate([[1, 2], [2, 4], [3, 6]], [1, 2, 3], [5, 10])
    with pytest.raises(ValueError, match="2 cases cannot prove a form of 2 features: count at least 3"):
        extrapolate(cases[:2], [10, 13], [7, 1])
    with pytest.raises(ValueError, match="5/2, which is no number of bytes"):
        extrapolate([[2, 1], [4, 1], [6, 1]], [1, 2, 3], [5, 1])


def test_a_case_counted_is_the_case_extrapolated() -> None:
    case = Case(images=5, local_crops=3, prototypes=3072)
    student, teacher = (torch.zeros(n * case.images, case.prototypes, dtype=torch.bfloat16) for n in (case.crops, 2))
    center = torch.zeros(case.prototypes)
    _, counted = kernel_traffic.watch(lambda: dino_loss_and_gradient_(student, teacher, center, case.crops, 0.1, 0.04))
    assert kernel_traffic.loss(case).counted == counted


Rows = dict[str, traffic.Row]


@pytest.fixture(scope="module")
def counted() -> list[traffic.Row]:
    return traffic.rows(CASE)


@pytest.fixture
def rows(counted: list[traffic.Row]) -> Rows:
    return {row.name: row for row in counted}


def test_the_case_is_that_of_vit_small() -> None:
    assert CASE.parameters == 44_017_792
    assert (CASE.student_bytes, CASE.teacher_bytes, CASE.prototype_bytes) == (80 * 2**20, 16 * 2**20, 32 * 2**20)


def eager(row: traffic.Row) -> Count:
    assert row.eager is not None
    return row.eager


def pytorch(row: traffic.Row) -> Count:
    assert row.pytorch is not None
    return row.pytorch


def test_the_originals_loss(rows: Rows) -> None:
    s, t, view = CASE.student_bytes, CASE.teacher_bytes, CASE.student_bytes // CASE.crops
    pairs = 2 * (CASE.crops - 1)
    # In units of a crop's logits in bfloat16, 1 to read or write them, 2 in float32. Forward, each pair: cast 3,
    # log-softmax 4, negation 4, product 6, sum 2; backward: product 4, log-softmax 6, cast 3. The gradients of a local
    # crop's two pairs are added: 3. Division by the temperature, its gradient and the joining of crops: 2 S each.
    logits = 6 * s + pairs * (19 + 13) * view + 3 * (CASE.crops - 2) * view
    # Less the center 3, divided 4, softmax 4, and the sum of the center 1.
    logits += 12 * t
    of_center = 11 * 4 * CASE.prototypes
    counted = eager(rows["loss"])
    # Beside these there are numbers a row, in at most 10 operations a pair.
    assert 0 <= counted.bytes - logits - of_center <= pairs * 10 * 3 * 4 * CASE.images
    # Cast, log-softmax, negation, product, two sums and an addition forward, three backward.
    assert counted.launches >= pairs * (7 + 3)
    assert counted.waits == 1


def test_our_loss_moves_272_mebibytes_of_logits(rows: Rows) -> None:
    s, t = CASE.student_bytes, CASE.teacher_bytes
    row = rows["loss"]
    pieces = (row.ours.launches - 2) // 2
    slices = CASE.prototypes // 1024
    # Written once, read by the gradient's kernel and for the totals.
    statistics = 3 * 4 * CASE.images * slices * (2 * (CASE.crops + 2) + 4)
    # Read by two kernels of each group of images; read and written in the tail, with the prototypes' inputs.
    of_center = 4 * CASE.prototypes * (2 * pieces + 2) + 4 * 2 * CASE.images * CASE.width
    others = row.ours.bytes - (3 * s + 2 * t)
    # A few numbers for each image and launch, and the mean of the inputs.
    assert 0 < others <= statistics + of_center + 16 * CASE.images + 64 * row.ours.launches + 3 * 4 * CASE.width
    assert row.cached == s + t
    assert row.bytes()["ours, cached"] - (2 * s + t) == others


def test_the_teachers_average_moves_12_bytes_a_parameter(rows: Rows) -> None:
    row = rows["teacher"]
    table = sum(-(-weight.count // 1024) for weight in CASE.weights)
    assert row.ours == Count(8 * CASE.parameters + 24 * table + 8, 4 * CASE.parameters, 1)
    assert pytorch(row) == Count(8 * CASE.parameters, 4 * CASE.parameters, 1)
    assert eager(row) == Count(16 * CASE.parameters, 12 * CASE.parameters, 3 * len(CASE.weights))


def test_the_tail_moves_at_most_44_bytes_a_parameter(rows: Rows) -> None:
    row = rows["optimiser's tail"]
    by_kind = {
        kind: sum(weight.count for weight in CASE.weights if kernel_traffic._kind_of(weight) == kind)
        for kind in ("narrow", "wide", "rows", "frozen")
    }
    # Two norms' reads in bfloat16 or float32, and 32 + 4 for weights and copies; rows are read for their norms too;
    # what is frozen is read, and the teacher and both copies written.
    values = 40 * by_kind["narrow"] + 44 * by_kind["wide"] + 44 * by_kind["rows"] + 16 * by_kind["frozen"]
    # Rows of tables: 8 bytes for each 1,024 values, 12 and two sums for each 16,384 or 256th of a parameter, and
    # at most 200 a parameter.
    tables = 8 * (CASE.parameters // 1024 + len(CASE.weights)) + 20 * (CASE.parameters // 16384 + 300)
    assert 0 < row.ours.bytes - values <= tables + 200 * len(CASE.weights)
    assert row.ours.bytes <= 44 * CASE.parameters
    assert (row.ours.launches, row.ours.waits) == (2, 0)


def test_the_originals_tail_waits_twice_for_each_norm(rows: Rows) -> None:
    row = rows["optimiser's tail"]
    trained = [weight for weight in CASE.weights if weight.trains]
    assert (len(trained), eager(row).waits) == (157, 2 * 157)
    parts = row.parts["eager"]
    count_trained = sum(weight.count for weight in trained)
    # A norm, and a product in place; some numbers for each.
    assert 0 <= parts["clip"].bytes - 12 * count_trained <= 64 * len(trained)
    # Decay 8, first moment 12, second moment 8 and 12, root 8, two operations of 8, update 16; decay in one group only.
    decayed = sum(weight.count for weight in trained if len(weight.shape) > 1)
    assert parts["AdamW"].bytes == 72 * count_trained + 8 * decayed
    assert parts["average"] == eager(rows["teacher"])


def test_best_is_best_and_nothing_is_below_the_floor(rows: Rows) -> None:
    for row in rows.values():
        assert row.floor <= min(row.bytes().values())
        assert row.ours.waits == 0
        if row.eager and row.pytorch:
            assert row.pytorch.waits == 0
            assert row.pytorch.bytes < row.eager.bytes
            # Where there is nothing to gain there are tables of addresses, and three constants a channel.
            assert row.ours.bytes <= row.pytorch.bytes * (1 + 24 / 4096)
            assert row.ours.launches <= row.pytorch.launches


def test_a_step_has_eight_launches_and_one_a_group(rows: Rows) -> None:
    pieces = (rows["loss"].ours.launches - 2) // 2
    assert rows["step"].ours == total([rows["loss"].ours, rows["optimiser's tail"].ours])
    assert rows["step"].ours.launches <= 8 + pieces
    assert rows["step"].ours.waits == 0


def test_cutting_trades_products_for_memory(rows: Rows) -> None:
    whole, cut = rows["last layer, loss"], rows["the same, cut"]
    # Prototypes of both for the logits, twice; the student's for the features' gradient; their own gradient. Features
    # and sums over them are for each slice, of which there are four.
    least = 6 * CASE.prototype_bytes
    features = 2 * CASE.width * (CASE.crops + 2) * CASE.images
    assert least < cut.bytes()["ours, cached"] < least + 4 * 10 * features + 2**23
    assert cut.bytes()["ours, cached"] < whole.bytes()["ours, cached"] < cut.ours.bytes
    # One more product of all features with the prototypes.
    assert cut.flops - whole.flops == 2 * CASE.prototypes * CASE.width * (CASE.crops + 2) * CASE.images


@pytest.fixture
def arguments(tmp_path: Path, counted: list[traffic.Row]) -> Iterator[Path]:
    output = tmp_path / "written.json"
    with mock.patch("sys.argv", ["script", "--output", str(output)]), mock.patch.object(traffic, "rows") as rows:
        rows.return_value = counted
        yield output


def test_traffic_as_table_and_json(
    arguments: Path, counted: list[traffic.Row], capsys: pytest.CaptureFixture[str]
) -> None:
    traffic.main()
    printed = capsys.readouterr().out.splitlines()
    written = json.loads(arguments.read_text())["rows"]
    for row, line, saved in zip(counted, printed[2:], written, strict=False):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == row.name == saved["name"]
        assert cells[3] == f"{row.ours.bytes / 2**20:,.1f}"
        assert saved["ours"] == {"bytes": row.ours.bytes} | row.ours._asdict()
        assert saved["floor"]["bytes"] == row.floor and saved["floor"]["formula"]
    assert len(written) == len(counted)


def test_roofline_as_table_and_json(
    arguments: Path, counted: list[traffic.Row], capsys: pytest.CaptureFixture[str]
) -> None:
    roofline.main()
    printed = capsys.readouterr().out
    written = json.loads(arguments.read_text())
    assert "modelled" in printed.splitlines()[0] and "not measured" in printed
    assert written["modelled"] is True
    assert all(gpu["source"] for gpu in written["gpus"])
    for gpu in written["gpus"]:
        assert gpu["name"] in printed.splitlines()[0]
    modelled = {(row["work"], row["column"]): row["modelled_microseconds"] for row in written["rows"]}
    assert len(modelled) == sum(len(row.bytes()) for row in counted)
    loss = counted[0]
    assert modelled["loss", "ours"]["H100 SXM"] == round(loss.ours.bytes / 3.35e6, 2)
    assert modelled["loss", "ours"]["H100 achieved"] == round(loss.ours.bytes / 3.0e6, 2)


def test_products_and_their_bytes_overlap_and_the_rest_follows() -> None:
    gpu = roofline.Gpu("", bandwidth=1e12, rate=1e14, source="")

    def row(flops: int) -> traffic.Row:
        return traffic.Row("", None, None, Count(10**6), 0, 0, "", {}, flops, 4 * 10**5)

    # 0.4 microseconds of bytes meanwhile, 0.6 afterwards; a product of 1e8 operations takes 1.
    for flops, expected in ((10**8, 1.6e-6), (10**7, 1.0e-6)):
        assert roofline.seconds(row(flops), 10**6, gpu) == pytest.approx(expected, rel=1e-12)
