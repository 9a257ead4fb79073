"""Bytes, launches and waits of every kernel's work on one GPU: the original's way, PyTorch's best, ours, and the floor.

    python benchmarks/traffic.py [--output traffic.json]

The case is a training step of ViT-S/16 in bfloat16: 64 images, 2 + 8 crops, 65,536 prototypes. Nothing is timed, and
no GPU is needed: every number is counted.

The model is the same for all columns. A launch reads each address of its operands once and writes each address of its
results once; nothing stays in a cache from one launch to the next. `ours, cached` alone gives credit for the one reuse
that the kernels are made for: what the launch before has read or written fits in an H100's second-level cache (a group
of images of the loss, a slice of columns of the cut loss). That is modelled, not measured.

`eager` and `PyTorch` are counted while PyTorch runs the operations on the device `meta` (gpu_proofs/dispatch_counter,
gpu_proofs/pytorch_traffic). `ours` is counted while Triton's interpreter runs the launchers of kernels/ on small cases,
and carried to this case by forms that are exactly linear in it (gpu_proofs/kernel_traffic). `floor` is a formula:
what has to move when every input is read once and every output written once.

A launch is an operation or kernel that touches memory; a wait is a number that the host asks the device for.

The rows:
loss               from logits to loss, gradient and moved center. Ours moves the center in the optimiser's tail, whose
                   additional bytes stand here.
last layer, loss   the same from features and prototypes, with the products of the last layer, forward and backward.
the same, cut      ours without logits in memory: it trades the products of the forward pass, computed once more, for
                   the logits' memory. Its bytes without credit are higher: what it saves is memory, then bandwidth.
teacher            the average alone, over lists of tensors.
optimiser's tail   from the gradients that products give (bfloat16 for their weights) to the weights that the next
                   products take: casts, weight normalisation of the last layer forward and backward, a norm and clip
                   for each parameter, AdamW, the teacher's average.
step               loss and tail together.
crops              bytes to normalised bfloat16. The original does this on the CPU, image by image; counted here as its
                   operations on whole crops. PyTorch's best has other bits in the last place than its division.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

# Kernels are interpreted or compiled according to what stands here when they are imported.
os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import fastdino  # noqa: E402

if importlib.util.find_spec("fastdino.kernels") is None:
    fastdino.__path__.append(str(REPOSITORY))

import torch  # noqa: E402
import triton  # noqa: E402

from benchmarks.gpu_proofs import kernel_traffic, pytorch_traffic  # noqa: E402
from benchmarks.gpu_proofs.concrete_case import CASE, Case  # noqa: E402
from benchmarks.gpu_proofs.dispatch_counter import Count, total  # noqa: E402
from fastdino.files import write_atomically  # noqa: E402

MEBI = 2**20
COLUMNS = ("eager", "PyTorch", "ours", "ours, cached")


class Row(NamedTuple):
    """One piece of work.

    `cached` is what of ours comes out of the cache or stays there; `parts` are what a column's count consists of. Where
    there are products, they take `flops` operations, and `product_bytes` at most of a column's bytes move meanwhile.
    """

    name: str
    eager: Count | None
    pytorch: Count | None
    ours: Count
    cached: int
    floor: int
    formula: str
    parts: dict[str, dict[str, Count]]
    flops: int = 0
    product_bytes: int = 0

    def bytes(self) -> dict[str, int]:
        """By column; columns that this work does not have are left out."""
        counts = {"eager": self.eager, "PyTorch": self.pytorch, "ours": self.ours}
        result = {name: count.bytes for name, count in counts.items() if count is not None}
        if self.cached:
            result["ours, cached"] = self.ours.bytes - self.cached
        return result | {"floor": self.floor}


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where to write the same as JSON")
    arguments = parser.parse_args()
    counted = rows(CASE)
    print(table(counted))
    if arguments.output:
        write_atomically(arguments.output, json.dumps(report(CASE, counted), indent=1) + "\n")


def rows(case: Case) -> list[Row]:
    """All work of a step, in the order of the module's docstring."""
    loss, layer, cut = losses(case)
    tail = optimiser_tail(case)
    assert loss.eager and loss.pytorch and tail.eager and tail.pytorch
    step = Row(
        "step",
        total([loss.eager, tail.eager]),
        total([loss.pytorch, tail.pytorch]),
        total([loss.ours, tail.ours]),
        loss.cached + tail.cached,
        loss.floor + tail.floor,
        "sum of both",
        {},
    )
    return [loss, layer, cut, teacher(case), tail, step, crops(case)]


def losses(case: Case) -> tuple[Row, Row, Row]:
    """The loss by itself, with the last layer, and cut."""
    eager, best = pytorch_traffic.eager_loss(case), pytorch_traffic.best_loss(case)
    kernels, center = kernel_traffic.loss(case), kernel_traffic.center(case)
    ours = total([kernels.counted, center])
    formula = "student's logits read and written as gradient, teacher's logits read, center (8 K)"
    floor = 2 * case.student_bytes + case.teacher_bytes + 8 * case.prototypes
    parts = {"ours": {"kernels": kernels.counted, "center in the tail": center}}
    loss = Row("loss", eager, best, ours, kernels.from_cache, floor, formula, parts)

    products = pytorch_traffic.last_layer_products(case)
    features = 2 * case.width * (2 * case.crops + 2) * case.images
    floor = 3 * case.prototype_bytes + features + 8 * case.prototypes
    formula = "prototypes of both read, the student's gradient written, features and their gradient, center: no logits"
    layer = Row(
        "last layer, loss",
        total([eager, products]),
        total([best, products]),
        total([ours, products]),
        kernels.from_cache,
        floor,
        formula,
        {"all": {"products": products}},
        case.last_layer_flops(),
        products.bytes,
    )
    sliced = kernel_traffic.cut_loss(case)
    ours = total([sliced.counted, center])
    flops = case.last_layer_flops(forward_passes=2)
    cut = Row("the same, cut", None, None, ours, sliced.from_cache, floor, formula, {}, flops, ours.bytes)
    return loss, layer, cut


def teacher(case: Case) -> Row:
    """The average alone."""
    return Row(
        "teacher",
        pytorch_traffic.eager_average(case),
        pytorch_traffic.best_average(case),
        kernel_traffic.average(case),
        0,
        12 * case.parameters,
        "12 P: teacher read and written, student read",
        {},
    )


def optimiser_tail(case: Case) -> Row:
    """Clip, AdamW, average, copies."""
    parts = {"eager": pytorch_traffic.eager_tail(case), "PyTorch": pytorch_traffic.best_tail(case)}
    ours = kernel_traffic.tail(case)
    trained = [weight for weight in case.weights if weight.trains]
    return Row(
        "optimiser's tail",
        total(parts["eager"].values()),
        total(parts["PyTorch"].values()),
        ours,
        0,
        sum((38 if weight.narrow else 36) * weight.count for weight in trained),
        "38 P: gradient (2), student, teacher and moments read and written (32), two copies (4); 36 P where products "
        "take no copy: gradient (4) and no copies; norms for free",
        parts,
    )


def crops(case: Case) -> Row:
    """Bytes to bfloat16."""
    values = sum(torch.Size(shape).numel() for shape in case.pixel_shapes)
    return Row(
        "crops",
        pytorch_traffic.eager_normalisation(case),
        pytorch_traffic.best_normalisation(case),
        kernel_traffic.normalisation(case),
        0,
        3 * values,
        "3 a value: a byte read, bfloat16 written",
        {},
    )


def table(counted: list[Row]) -> str:
    """One line per work."""

    def lines() -> Iterator[str]:
        yield "| MiB | eager | PyTorch | ours | ours, cached | floor | launches | waits |"
        yield "|---|---:|---:|---:|---:|---:|---:|---:|"
        for row in counted:
            moved = row.bytes()
            cells = [f"{moved[name] / MEBI:,.1f}" if name in moved else "" for name in (*COLUMNS, "floor")]
            yield f"| {row.name} | {' | '.join(cells)} | {_three(row, 'launches')} | {_three(row, 'waits')} |"
        yield "\nLaunches and waits: eager / PyTorch / ours. Counted, not timed; `cached` is modelled."

    return "\n".join(lines())


def _three(row: Row, what: str) -> str:
    return " / ".join("-" if c is None else str(getattr(c, what)) for c in (row.eager, row.pytorch, row.ours))


def report(case: Case, counted: list[Row]) -> dict[str, Any]:
    """For JSON."""

    def numbers(count: Count | None) -> dict[str, int] | None:
        return None if count is None else {"bytes": count.bytes} | count._asdict()

    return {
        "case": asdict(case) | {"model": "ViT-S/16", "dtype": "bfloat16", "parameters": case.parameters},
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "rows": [
            {
                "name": row.name,
                "eager": numbers(row.eager),
                "PyTorch": numbers(row.pytorch),
                "ours": numbers(row.ours),
                "ours, cached": {"modelled": True, "bytes": row.ours.bytes - row.cached} if row.cached else None,
                "floor": {"bytes": row.floor, "formula": row.formula},
                "parts": {
                    column: {name: numbers(count) for name, count in of.items()} for column, of in row.parts.items()
                },
            }
            for row in counted
        ],
    }


if __name__ == "__main__":
    main()
