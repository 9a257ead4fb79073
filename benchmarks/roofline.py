"""Modelled times of the work that benchmarks/traffic.py counts, on GPUs that nobody has asked.

    python benchmarks/roofline.py [--output roofline.json]

Every time here is modelled, none is measured:

    time = bytes / bandwidth
    with products: max(their bytes / bandwidth, operations / rate) + the other bytes / bandwidth

So it is the shortest that the bytes allow. Launches, waits, work that computes more than it moves, and caches beyond
the one reuse of the column `ours, cached` are left out; the first two would lengthen `eager` most. That column is
counted with an H100's cache, and another one changes how often the center's 0.25 MiB are read. The cut loss, its floor
included, computes the logits twice.

Bandwidths and rates of dense bfloat16 products are the datasheets', of which products are taken to reach 0.70. For the
H100 there is a second column with what has been achieved on one: 3.0 TB/s in a copy on the device, bytes read and
written together, and 798 TFLOP/s in a large bfloat16 product.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Before anything that brings Triton: it says that kernels are to be interpreted.
from benchmarks import traffic
from benchmarks.gpu_proofs.concrete_case import CASE
from fastdino.files import write_atomically

PRODUCTS = 0.70


class Gpu(NamedTuple):
    """What a GPU can do: bytes a second, and operations a second in products of bfloat16."""

    name: str
    bandwidth: float
    rate: float
    source: str


GPUS = (
    Gpu("A100 80GB", 2.039e12, PRODUCTS * 312e12, "NVIDIA A100 datasheet, SXM: 2,039 GB/s, 312 TFLOPS"),
    Gpu("H100 SXM", 3.35e12, PRODUCTS * 989.5e12, "NVIDIA H100 datasheet, SXM: 3.35 TB/s, 1,979 TFLOPS with sparsity"),
    Gpu("H100 achieved", 3.0e12, 798e12, "copy on the device and large product, as measured on an H100 80GB"),
    Gpu("H200", 4.8e12, PRODUCTS * 989.5e12, "NVIDIA H200 datasheet, SXM: 4.8 TB/s, 1,979 TFLOPS with sparsity"),
    Gpu("B200", 8.0e12, PRODUCTS * 2250e12, "NVIDIA DGX B200 datasheet, an eighth: 8 TB/s, 4.5 PFLOPS with sparsity"),
)


class Time(NamedTuple):
    """One column of one row of benchmarks/traffic.py, in modelled microseconds by GPU."""

    work: str
    column: str
    bytes: int
    microseconds: dict[str, float]


def main() -> None:
    """Count, model, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where to write the same as JSON")
    arguments = parser.parse_args()
    rows = traffic.rows(CASE)
    print(table(times(rows)))
    if arguments.output:
        write_atomically(arguments.output, json.dumps(report(rows), indent=1) + "\n")


def times(rows: list[traffic.Row]) -> list[Time]:
    """All columns of all rows."""
    return [
        Time(row.name, column, moved, {gpu.name: 1e6 * seconds(row, moved, gpu) for gpu in GPUS})
        for row in rows
        for column, moved in row.bytes().items()
    ]


def seconds(row: traffic.Row, moved: int, gpu: Gpu) -> float:
    """The model."""
    of_products = min(row.product_bytes, moved)
    return max(of_products / gpu.bandwidth, row.flops / gpu.rate) + (moved - of_products) / gpu.bandwidth


def table(modelled: list[Time]) -> str:
    """One line per row and column."""

    def lines() -> Iterator[str]:
        yield f"| modelled microseconds | | {' | '.join(gpu.name for gpu in GPUS)} |"
        yield "|---|---|" + "---:|" * len(GPUS)
        for time in modelled:
            yield f"| {time.work} | {time.column} | {' | '.join(f'{x:,.1f}' for x in time.microseconds.values())} |"
        yield "\nModelled from bytes and operations, not measured: no GPU has run this."

    return "\n".join(lines())


def report(rows: list[traffic.Row]) -> dict[str, Any]:
    """For JSON."""
    return {
        "modelled": True,
        "model": "bytes / bandwidth; with products max(their bytes / bandwidth, operations / rate) + the other bytes",
        "gpus": [gpu._asdict() for gpu in GPUS],
        "share_of_products_peak": PRODUCTS,
        "products": {row.name: {"flops": row.flops, "bytes": row.product_bytes} for row in rows if row.flops},
        "rows": [
            {
                "work": time.work,
                "column": time.column,
                "bytes": time.bytes,
                "modelled_microseconds": {gpu: round(x, 2) for gpu, x in time.microseconds.items()},
            }
            for time in times(rows)
        ],
    }


if __name__ == "__main__":
    main()
