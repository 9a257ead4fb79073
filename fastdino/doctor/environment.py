"""What fastdino meets on this machine, for bug reports."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess

import torch

import fastdino
from fastdino import native
from fastdino.cores import usable_cores
from fastdino.implementation import OPERATIONS, c_compiler, choose

PACKAGES = ("torch", "torchvision", "triton", "xformers", "timm", "numpy")


def environment(device: torch.device) -> dict[str, str]:
    """Name -> what was found; nothing here fails for what is missing."""
    return {
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "fastdino": fastdino.__version__,
        **{name: version(name) for name in PACKAGES},
        "native extension": native.why_not() or "built",
        "C compiler": c_compiler() or "none: Triton needs one, install gcc",
        "CPU cores": str(usable_cores()),
        "GPU": _gpu(device),
    }


def choices(device: torch.device) -> dict[str, str]:
    """Operation -> the implementation that training takes here, and why."""
    chosen = {operation: choose(operation, "auto", device) for operation in OPERATIONS}
    return {operation: f"{choice.name} ({choice.why})" for operation, choice in chosen.items()}


def version(package: str) -> str:
    """As installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _gpu(device: torch.device) -> str:
    if device.type != "cuda":
        return "none"
    properties = torch.cuda.get_device_properties(device)
    capability = f"compute capability {properties.major}.{properties.minor}"
    toolkit = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"{properties.name}, {capability}, {properties.total_memory / 2**30:.0f} GiB, {toolkit}, {_driver()}"


def _driver() -> str:
    """PyTorch does not say; NVIDIA's own tool does where it is installed."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        found = []
    return f"driver {found[0]}" if found else "driver unknown"
