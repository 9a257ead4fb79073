"""What every kernel costs on every target: compiles all configurations without a GPU.

    python benchmarks/compile_report.py [--targets sm_90 gfx942] [--extremes] [--output report.json]

prints registers, spilled bytes, shared bytes, widths of global loads and stores (`bits x instructions`) and
exponentials, and writes the same as JSON. `launch` rows are compiled through the launchers with real arguments.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

import fastdino  # noqa: E402

if importlib.util.find_spec("fastdino.kernels") is None:
    fastdino.__path__.append(str(REPOSITORY))

from benchmarks.gpu_proofs.compiler import TARGETS, compile_for, compiled_launches  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--modules", nargs="+", default=modules(), help="files of kernels/, all by default")
    parser.add_argument(
        "--extremes", action="store_true", help="only those that need most of something: two minutes instead of twenty"
    )
    parser.add_argument("--output", type=Path, help="where to write the report as JSON")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("an interpreted kernel cannot be compiled: unset TRITON_INTERPRET")
    work = [
        job
        for module in arguments.modules
        for target in arguments.targets
        for job in jobs(module, target, arguments.extremes)
    ]
    with multiprocessing.get_context("spawn").Pool() as pool:
        rows = [row for part in pool.starmap(report, work, chunksize=1) for row in part]
    print(table(rows))
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1))


def modules() -> list[str]:
    """Files of kernels/ that list configurations."""
    package = importlib.import_module("fastdino.kernels")
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [name for name in names if hasattr(kernel_module(name), "configurations")]


def kernel_module(name: str) -> Any:
    return importlib.import_module(f"fastdino.kernels.{name}")


def jobs(module: str, target: str, extremes: bool) -> Iterator[tuple[str, str, int | str]]:
    """What to compile: a configuration by its number, a launch by its name."""
    for number, configuration in enumerate(kernel_module(module).configurations(TARGETS[target].warp_size)):
        if configuration.extreme or not extremes:
            yield module, target, number
    for name in LAUNCHES.get(module, {}):
        yield module, target, name


def report(module: str, target: str, which: int | str) -> list[dict[str, Any]]:
    """One configuration of a file, or all kernels of a launch."""
    if isinstance(which, str):
        launched = compiled_launches(target, LAUNCHES[module][which])
        return [row(module, target, kernel, f"launch: {which}") | asdict(code) for kernel, code in launched]
    c = list(kernel_module(module).configurations(TARGETS[target].warp_size))[which]
    code = compile_for(target, c.kernel, c.signature, c.constexprs, c.options)
    promised = {"wide_loads": c.wide_loads, "wide_stores": c.wide_stores}
    return [row(module, target, c.kernel.__name__, c.name) | asdict(code) | promised]


def row(module: str, target: str, kernel: str, configuration: str) -> dict[str, Any]:
    return {"module": module, "target": target, "kernel": kernel, "configuration": configuration}


def launch_dino_loss(width: int, prototypes: int, ncrops: int = 10) -> None:
    """Loss and gradient of two images as bfloat16."""
    import torch

    from fastdino.kernels.dino_loss import dino_loss_and_gradient_

    student, teacher = (torch.empty(2 * crops, width, dtype=torch.bfloat16) for crops in (ncrops, 2))
    dino_loss_and_gradient_(student, teacher, torch.empty(prototypes), ncrops, 0.1, 0.04)


def launch_ema() -> None:
    """The average of one tensor."""
    import torch

    from fastdino.kernels.ema import ema_

    ema_([torch.zeros(4096)], [torch.zeros(4096)], 0.996)


def arena() -> Any:
    """Two networks with shadows, of a layer with normalised rows."""
    import torch

    from fastdino.kernels.arena import Arena

    return Arena(*(torch.nn.Linear(256, 64) for _ in range(2)), shadows=True, normalised_rows="weight")


def launch_ema_arena() -> None:
    """The average in an arena."""
    from fastdino.kernels.ema import ema_arena_

    ema_arena_(arena(), 0.996)


def launch_adamw_ema() -> None:
    """A step of both networks in an arena."""
    import torch

    from fastdino.kernels.adamw_ema import StepScalars, adamw_ema_

    both = arena()
    both.attach(torch.optim.AdamW(both.student_parameters()))
    scalars = StepScalars(lr=1e-3, weight_decay=0.04, momentum=0.996).on(both.device)
    prototypes, width = both.student_parameters()[both.normalised].shape
    adamw_ema_(both, scalars, torch.zeros(1, prototypes), torch.zeros(8, width))


def launch_normalize(size: int) -> None:
    """Two crops as bfloat16."""
    import torch

    from fastdino.kernels.normalize import normalize

    normalize(torch.zeros(2, 3, size, size, dtype=torch.uint8))


def launch_layer_norm(width: int) -> None:
    """Ten rows to bfloat16, and back."""
    import torch

    from fastdino.kernels.layer_norm import normalized

    x, weight, bias = (torch.zeros(*shape, requires_grad=True) for shape in ((10, width), (width,), (width,)))
    same, out = normalized(x, weight, bias, 1e-6, torch.bfloat16)
    torch.autograd.grad((same, out), (x, weight, bias), (torch.zeros_like(same), torch.zeros_like(out)))


LAUNCHES: dict[str, dict[str, Callable[[], None]]] = {
    "adamw_ema": {"arena": launch_adamw_ema},
    "dino_loss_configurations": {
        "65,536 prototypes": lambda: launch_dino_loss(65536, 65536),
        "65,001 prototypes in rows of 65,008": lambda: launch_dino_loss(65008, 65001),
        "1 prototype, no local crops": lambda: launch_dino_loss(1, 1, ncrops=2),
    },
    "ema": {"4,096 parameters": launch_ema, "arena": launch_ema_arena},
    "layer_norm": {
        "384 values": lambda: launch_layer_norm(384),
        "33 values": lambda: launch_layer_norm(33),
    },
    "normalize": {
        "crops of 224 pixels": lambda: launch_normalize(224),
        "crops of 33 pixels": lambda: launch_normalize(33),
    },
}


def table(rows: list[dict[str, Any]]) -> str:
    """One line per row."""

    def lines() -> Iterator[str]:
        yield (
            f"{'kernel':22} {'configuration':44} {'target':7} {'regs':>4} {'spill':>5} {'shared':>6} "
            f"{'exp2':>4}  {'loads':24} stores"
        )
        for r in rows:
            loads, stores = (
                " ".join(f"{bits}x{n}" for bits, n in sorted(r[kind].items())) for kind in ("loads", "stores")
            )
            yield (
                f"{r['kernel']:22} {r['configuration']:44} {r['target']:7} {r['registers']:4} {r['spilled_bytes']:5} "
                f"{r['shared_bytes']:6} {r['exponentials']:4}  {loads:24} {stores}"
            )

    return "\n".join(lines())


if __name__ == "__main__":
    main()
