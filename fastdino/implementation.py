"""Which implementation an operation takes: chosen here and nowhere else, with the reason for the log.

`triton` are the kernels of fastdino.kernels, `torch` is PyTorch used well, `reference` the plain form that both are
compared with, and `auto` takes Triton on GPUs where it can be trusted and torch everywhere else.
"""

from __future__ import annotations

import functools
import importlib
import os
import shutil
from typing import Any, NamedTuple

import torch

from fastdino.doctor import record

IMPLEMENTATIONS = ("auto", "triton", "torch", "reference")

# What has a kernel; `fastdino doctor` judges each by itself.
LOSS, TEACHER, UPDATE, NORMALISATION, NORMS = OPERATIONS = ("loss", "teacher", "update", "normalisation", "norms")

OLDEST_CAPABILITY = (8, 0)


class Choice(NamedTuple):
    """`name` is one of IMPLEMENTATIONS but auto; `why` completes "by <name>: ..."."""

    name: str
    why: str


@functools.cache
def choose(operation: str, requested: str, device: torch.device) -> Choice:
    """The implementation of one of OPERATIONS for tensors on `device`.

    Raises ValueError for an unknown implementation, and for `triton` where it cannot run.
    """
    if requested not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, not {requested!r}")
    if requested in ("torch", "reference"):
        return Choice(requested, "as asked for")
    if requested == "triton":
        obstacle = why_no_triton(device)
        if obstacle:
            raise ValueError(f"the Triton kernels cannot be used: {obstacle}")
        return Choice("triton", "as asked for")
    # In this order: without a GPU, Triton need not even be imported.
    obstacle = _without_gpu(device) or why_no_triton(device) or record.why_distrusted(operation, device)
    return Choice("torch", obstacle) if obstacle else Choice("triton", "the fastest on this GPU")


def kernels(name: str) -> Any:
    """The module fastdino.kernels.<name>, which imports Triton."""
    return importlib.import_module(f"fastdino.kernels.{name}")


def why_no_triton(device: torch.device) -> str:
    """What keeps kernels from running on `device`, with the remedy; empty if nothing does."""
    try:
        interpreted = kernels("launch").interpreted()
    except Exception as error:  # whatever a broken installation raises
        return f"they do not load ({type(error).__name__}: {error}); reinstall torch, which brings Triton, and fastdino"
    if interpreted:
        return ""
    if device.type != "cuda":
        return _without_gpu(device)
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return "this GPU is older than the kernels' oldest, compute capability 8.0 (Ampere)"
    if c_compiler() is None:
        return "Triton needs a C compiler: install gcc"
    return ""


def c_compiler() -> str | None:
    """Where the compiler is that Triton takes, which it needs for its launchers."""
    given = os.environ.get("CC")
    return shutil.which(given) if given is not None else shutil.which("gcc") or shutil.which("clang")


def _without_gpu(device: torch.device) -> str:
    return "" if device.type == "cuda" else f"the device is {'a CPU' if device.type == 'cpu' else device.type}"
