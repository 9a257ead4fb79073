"""Loaders that carry out DINO's recipe, each behind the same function: pictures in a folder to endless batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BASELINE = "torchvision_pil"


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    module: str
    """In this package; its `batches(folder, count, threads, batch_size, **options)` is imported when it is measured."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    remark: str = ""
    """Where its work is not DINO's."""

    def why_missing(self) -> str:
        """One line that says what is not installed; empty if nothing is missing."""
        if self.module == "ours":
            from fastdino import native

            return native.why_not()
        missing = [module for module in self.needs if not _installed(module)]
        return f"{', '.join(missing)} not installed" if missing else ""

    def batches(self, folder: Path, count: int, threads: int, batch_size: int) -> Iterator[list[torch.Tensor]]:
        """Endless batches of the folder's first `count` pictures: ten views, each (batch, 3, size, size)."""
        open_batches = import_module(f"{__name__}.{self.module}").batches
        batches: Iterator[list[torch.Tensor]] = open_batches(folder, count, threads, batch_size, **self.options)
        return batches


_ALIASED = "aliased bicubic: skips pixels when shrinking"

PEERS = {
    "ours_float32": Peer("ours"),
    "ours_uint8": Peer("ours", options={"output": "uint8"}, remark="normalised on the device"),
    "ours_bfloat16": Peer("ours", options={"output": "bfloat16"}),
    "ours_portable": Peer("ours", environment={"FASTDINO_SIMD": "portable"}, remark="without AVX2 and AVX-512"),
    "ours_disk": Peer("ours", options={"from_disk": True}, remark="reads the files itself"),
    BASELINE: Peer("torchvision_pil", remark="the original's way"),
    "torchvision_v2": Peer("torchvision_v2", remark="true Gaussian blur"),
    "albumentations_area": Peer(
        "albumentations_opencv",
        ("albumentations", "cv2"),
        {"interpolation": "INTER_AREA"},
        remark="box filter; true Gaussian blur",
    ),
    "albumentations_cubic": Peer(
        "albumentations_opencv",
        ("albumentations", "cv2"),
        {"interpolation": "INTER_CUBIC"},
        remark=f"{_ALIASED}; true Gaussian blur",
    ),
    "lightly": Peer("lightly_dino", ("lightly", "lightning_utilities")),
    "kornia": Peer("kornia_batch", ("kornia",), remark=f"{_ALIASED}; true Gaussian blur"),
    "dali_cpu": Peer("dali_cpu", ("nvidia.dali",), remark="jitter in one order; true Gaussian blur"),
}


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
