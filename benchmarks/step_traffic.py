"""Bytes, launches and waits of a whole training step on one GPU, the original's beside ours, and modelled pictures/s.

    python benchmarks/step_traffic.py [--output step_traffic.json]

The case is that of benchmarks/traffic.py: ViT-S/16 in bfloat16, 64 images, 2 x 224 + 8 x 96 pixels, 65,536 prototypes,
AdamW, stochastic depth 0.1. No GPU is needed: the real step runs on the device `meta` and is counted operation by
operation (gpu_proofs/step_on_meta), by the same rule: a launch reads each address of its operands once and writes each
of its results once, and nothing stays in a cache.

The parts:
crops      from the host's memory to what the first layer takes.
teacher    its forward pass, with its weights' casts in the original, and with the run's figures in ours.
student    its forward pass, likewise.
loss       from logits to their gradient, and the center but for what of it is in our update.
backward   from the logits' gradient to all gradients of weights. Ours computes GELU again there, to save memory.
update     clipping, AdamW, teacher, and in ours the copies of all weights for the next step.

Times are modelled and not measured; nothing has run on a GPU. A part takes

    max(sum over its operations of max(bytes / bandwidth, operations / rate), launches x 5 microseconds)

with the GPUs of benchmarks/roofline.py; 5 microseconds are what a host is taken to need for an operation of PyTorch's.
Waits, the loader, communication, and kernels below the datasheet's bandwidth are left out, so these are ceilings. How
far below them a run stays is shown by the V100, of which the paper's runs say how long they took; the kernels ask for
a newer GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Before anything that brings Triton: it says that kernels are to be interpreted.
from benchmarks import roofline
from benchmarks.gpu_proofs.concrete_case import CASE, Case
from benchmarks.gpu_proofs.dispatch_counter import Count, total
from benchmarks.gpu_proofs.step_counter import Operation
from benchmarks.gpu_proofs.step_on_meta import PARTS, kernels, original_step, our_step
from benchmarks.traffic import MEBI
from fastdino.files import write_atomically

SECONDS_TO_LAUNCH = 5e-6
V100 = roofline.Gpu(
    "V100 SXM2", 0.9e12, roofline.PRODUCTS * 125e12, "NVIDIA V100 datasheet, SXM2: 900 GB/s, 125 TFLOPS in float16"
)
GPUS = tuple(gpu for gpu in roofline.GPUS if gpu.name.startswith(("A100", "H100")))
# ImageNet's 1,281,167 pictures, 300 times in 2.6 days on 16 V100 (the original's README, ViT-S/16 with 2 + 8 crops).
PAPER = 1_281_167 * 300 / (2.6 * 86_400 * 16)

KINDS = {
    "products with weights": ("addmm", "mm", "convolution", "convolution_backward"),
    "attention": ("bmm", "_softmax", "_softmax_backward_data", "fastdino_counted::attention"),
    "norms of tokens": ("native_layer_norm", "native_layer_norm_backward", "fastdino_counted::layer_norm"),
    "GELU": ("gelu", "gelu_backward"),
    "casts": ("_to_copy",),
    "copies": ("cat", "clone", "copy_", "select_backward", "slice_backward", "stack"),
    "sums, biases' gradients among them": ("sum",),
}
NETWORKS = ("teacher", "student", "backward")


class Row(NamedTuple):
    """Some operations of both steps."""

    name: str
    original: list[Operation]
    ours: list[Operation]

    def counts(self) -> tuple[Count, Count]:
        """Of the original and of ours."""
        original, ours = (total(x.moved for x in of) for of in (self.original, self.ours))
        return original, ours


def main() -> None:
    """Count, model, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where to write the same as JSON")
    arguments = parser.parse_args()
    step = Row("step", original_step(CASE), our_step(CASE, kernels(CASE)))
    print("\n".join([*table("part", [*by_part(step), step]), "", *table("kind, in the networks", by_kind(step)), ""]))
    print("\n".join(speeds(CASE, step)))
    if arguments.output:
        write_atomically(arguments.output, json.dumps(report(CASE, step), indent=1) + "\n")


def by_part(step: Row) -> list[Row]:
    """In the order of the module's docstring."""
    return [Row(part, *([x for x in of if x.part == part] for of in step[1:])) for part in PARTS]


def by_kind(step: Row) -> list[Row]:
    """What the networks' passes do, backward pass included."""

    def kind_of(operation: Operation) -> str:
        return next((kind for kind, names in KINDS.items() if operation.name.startswith(names)), "others")

    def those(operations: list[Operation], kind: str) -> list[Operation]:
        return [x for x in operations if x.part in NETWORKS and kind_of(x) == kind]

    return [Row(kind, those(step.original, kind), those(step.ours, kind)) for kind in (*KINDS, "others")]


def seconds(operations: Sequence[Operation], gpu: roofline.Gpu) -> float:
    """The model, summed over parts."""
    result = 0.0
    for part in PARTS:
        mine = [x for x in operations if x.part == part]
        busy = sum(max(x.moved.bytes / gpu.bandwidth, x.flops / gpu.rate) for x in mine)
        result += max(busy, SECONDS_TO_LAUNCH * total(x.moved for x in mine).launches)
    return result


def table(title: str, rows: list[Row]) -> Iterator[str]:
    """One line a row; shares are ours of the original's."""
    yield f"| {title} | original MiB | fastdino MiB | share | original launches | fastdino launches | share | waits |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        original, ours = row.counts()
        cells = [f"{original.bytes / MEBI:,.0f}", f"{ours.bytes / MEBI:,.0f}", _share(ours.bytes, original.bytes)]
        cells += [f"{original.launches:,}", f"{ours.launches:,}", _share(ours.launches, original.launches)]
        yield f"| {row.name} | {' | '.join(cells)} | {original.waits} / {ours.waits} |"


def _share(ours: int, original: int) -> str:
    return f"{ours / original:.0%}" if original else ""


def speeds(case: Case, step: Row) -> Iterator[str]:
    """Modelled pictures a second."""
    yield "| modelled | original, pictures/s | fastdino, pictures/s | ratio |"
    yield "|---|---:|---:|---:|"
    yield f"| {V100.name} | {case.images / seconds(step.original, V100):,.0f} | | |"
    for gpu in GPUS:
        original, ours = (case.images / seconds(of, gpu) for of in (step.original, step.ours))
        yield f"| {gpu.name} | {original:,.0f} | {ours:,.0f} | {ours / original:.2f} |"
    yield f"\nModelled, not measured: no GPU has run this. The paper's runs: {PAPER:.0f} pictures/s on a V100."


def report(case: Case, step: Row) -> dict[str, Any]:
    """For JSON."""

    def numbers(operations: list[Operation]) -> dict[str, int]:
        count = total(x.moved for x in operations)
        return {"bytes": count.bytes} | count._asdict() | {"flops": sum(x.flops for x in operations)}

    def lines(rows: list[Row]) -> list[dict[str, Any]]:
        return [{"name": x.name, "original": numbers(x.original), "ours": numbers(x.ours)} for x in rows]

    return {
        "case": asdict(case) | {"model": "ViT-S/16", "dtype": "bfloat16", "parameters": case.parameters},
        "parts": lines([*by_part(step), step]),
        "kinds in teacher, student, backward": lines(by_kind(step)),
        "model": "per part max(sum of max(bytes / bandwidth, flops / rate), launches * seconds_to_launch)",
        "seconds_to_launch": SECONDS_TO_LAUNCH,
        "gpus": [gpu._asdict() for gpu in (V100, *GPUS)],
        "modelled_pictures_per_second": {V100.name: {"original": round(case.images / seconds(step.original, V100))}}
        | {
            gpu.name: {
                "original": round(case.images / seconds(step.original, gpu)),
                "ours": round(case.images / seconds(step.ours, gpu)),
            }
            for gpu in GPUS
        },
        "pictures_per_second_of_the_paper_on_a_V100": round(PAPER),
    }


if __name__ == "__main__":
    main()
