"""Every kernel compiled for GPUs that are not here: registers, spills, shared memory, width of accesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
# What a thread can have, and what a block can have without special measures on the smallest GPU of each make.
REGISTERS = {"sm": 255, "gfx": 512}
SHARED_BYTES = {"sm": 99 * 1024, "gfx": 64 * 1024}


def make(target: str) -> str:
    return target.rstrip("0123456789").rstrip("_")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The report on what needs most, from a process in which kernels are compiled and not interpreted."""
    output = tmp_path_factory.mktemp("compile") / "report.json"
    command = [sys.executable, "benchmarks/compile_report.py", "--extremes", "--output", str(output)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


def failures(rows: list[dict[str, Any]], fails: Any) -> list[str]:
    return [f"{r['kernel']}, {r['configuration']}, {r['target']}: {r}" for r in rows if fails(r)]


def test_every_kernel_compiles_for_every_target(rows: list[dict[str, Any]]) -> None:
    for module in {r["module"] for r in rows}:
        for kind in ("launch: ", ""):
            targets = {r["target"] for r in rows if r["module"] == module and r["configuration"].startswith(kind)}
            assert targets == set(TARGETS), (module, kind)


def test_nothing_spills(rows: list[dict[str, Any]]) -> None:
    assert not failures(rows, lambda r: r["spilled_bytes"])


def test_registers_and_shared_memory_are_within_bounds(rows: list[dict[str, Any]]) -> None:
    assert not failures(rows, lambda r: r["registers"] > REGISTERS[make(r["target"])])
    assert not failures(rows, lambda r: r["shared_bytes"] > SHARED_BYTES[make(r["target"])])


def test_aligned_rows_move_128_bits_at_a_time(rows: list[dict[str, Any]]) -> None:
    assert any(r.get("wide_loads") for r in rows)
    assert not failures(rows, lambda r: r["loads"].get("128", 0) < r.get("wide_loads", 0))
    assert not failures(rows, lambda r: r["stores"].get("128", 0) < r.get("wide_stores", 0))
    assert not failures(rows, lambda r: r.get("wide_loads") and (r["loads"].keys() | r["stores"].keys()) & {"8", "16"})


@pytest.mark.parametrize("prototypes", ["65,536 prototypes", "65,001 prototypes in rows of 65,008"])
def test_the_loss_as_launched_moves_128_bits_at_a_time(rows: list[dict[str, Any]], prototypes: str) -> None:
    launched = [r for r in rows if r["configuration"] == f"launch: {prototypes}"]
    # 12 rows are read, 10 written, each 8 bfloat16 per thread.
    loads = {r["target"]: r["loads"].get("128", 0) for r in launched if r["kernel"] == "dino_loss_statistics"}
    stores = {r["target"]: r["stores"].get("128", 0) for r in launched if r["kernel"] == "dino_loss_gradient"}
    assert loads.keys() == stores.keys() == set(TARGETS)
    assert min(loads.values()) >= 12
    assert min(stores.values()) >= 10


@pytest.mark.parametrize(
    ("kernel", "launched", "loads", "stores"),
    [
        # Eight values of float32 per thread from and to each buffer; shadows move 64 bits at a time.
        ("ema_of_lists", "4,096 parameters", 4, 2),
        ("ema_of_arena", "arena", 4, 2),
        ("squares_and_constants", "arena", 2, 0),
        ("adamw_and_ema", "arena", 10, 8),
        # 16 bytes, which become bfloat16.
        ("normalize_planes", "crops of 224 pixels", 1, 2),
        # Sixteen float32 of each, which become or come from bfloat16; weight and bias.
        ("normalize_rows", "384 values", 6, 2),
        ("normalize_rows_gradient", "384 values", 11, 4),
    ],
)
def test_other_kernels_move_128_bits_at_a_time_as_launched(
    rows: list[dict[str, Any]], kernel: str, launched: str, loads: int, stores: int
) -> None:
    found = [r for r in rows if r["kernel"] == kernel and r["configuration"] == f"launch: {launched}"]
    assert {r["target"] for r in found} == set(TARGETS)
    assert not failures(found, lambda r: r["loads"].get("128", 0) < loads or r["stores"].get("128", 0) < stores)


def test_no_exponential_is_spent_on_padding(rows: list[dict[str, Any]]) -> None:
    """One per logit: (10 + 2) rows of 8 columns per thread."""
    counts = {
        r["exponentials"]
        for r in rows
        if r["kernel"] == "dino_loss_statistics" and r["configuration"] == "bf16 bf16 2+8 crops, aligned"
    }
    assert counts == {96}


COMPARE_WIDTHS = """
from benchmarks.compile_report import kernel_module
from benchmarks.gpu_proofs.compiler import compiled_for, read, sass_widths

for c in list(kernel_module("dino_loss_configurations").configurations(32))[:2]:
    compiled = compiled_for("sm_90", c.kernel, c.signature, c.constexprs, c.options)
    code = read(compiled, "sm_90")
    assert (code.loads, code.stores) == sass_widths(compiled), (code, sass_widths(compiled))
"""


def test_the_assembler_keeps_the_widths_that_the_report_reads_before_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPARE_WIDTHS]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
