"""What the numbers were measured on."""

from __future__ import annotations

import platform
from importlib.metadata import distributions
from pathlib import Path

from fastdino.cores import usable_cores

_VECTOR_FLAGS = ("sse4_2", "avx2", "avx512f", "avx512bw", "avx512_vnni", "asimd")
_PACKAGES = (
    "albumentations",
    "fastdino",
    "kornia",
    "lightly",
    "numpy",
    "nvidia-dali",
    "opencv-python",
    "pillow",
    "torch",
    "torchvision",
)
# Their names go on: opencv-python-headless, nvidia-dali-cuda130.
_VARIANTS = ("nvidia-dali-", "opencv-python-")


def machine() -> dict[str, object]:
    """Processor, its vector extensions and usable cores."""
    info = _cpu_info()
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in _VECTOR_FLAGS if flag in flags],
        "cores": usable_cores(),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Of Python and of every installed package that takes part."""
    found = {each.metadata["Name"].lower(): each.version for each in distributions() if each.metadata["Name"]}
    taking_part = {name: found[name] for name in sorted(found) if name in _PACKAGES or name.startswith(_VARIANTS)}
    return {"python": platform.python_version(), **taking_part}


def _cpu_info() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
