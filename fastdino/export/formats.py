"""The table of formats: a module each, with `write` and `load`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from fastdino.errors import UserError
from fastdino.models.pretrained import Backbone

Features = Callable[[Tensor], Tensor]


class Exporter(Protocol):
    """What the module of a format has."""

    def write(self, backbone: Backbone, path: Path, fixed_size: bool) -> None:
        """Write the backbone to `path`; with `fixed_size` for pictures of its `image_size` alone."""
        ...

    def load(self, path: Path, backbone: Backbone) -> Features:
        """What was written, loaded as its users do: normalised pictures (B, 3, H, W) -> features (B, D).

        Of `backbone` only what a user has to know, such as the size of pictures, may be used.
        """
        ...

    def usage(self, path: Path, backbone: Backbone) -> str:
        """The lines of Python that load it."""
        ...


class Format(NamedTuple):
    """One format. `keeps_code` says that a file holds the computation and not the weights alone."""

    module: str
    tolerance: float
    """Largest difference from the model's features, as a share of their largest."""
    keeps_code: bool = False
    is_folder: bool = False
    note: str = ""

    def exporter(self) -> Exporter:
        """The format's module. Raises UserError naming the package that it lacks."""
        try:
            module: Any = importlib.import_module(f"fastdino.export.{self.module}")
        except ModuleNotFoundError as error:
            raise UserError(
                f"{error.name} is not installed, which this format takes: pip install 'fastdino[export]'"
            ) from error
        return module


FORMATS = {
    "timm": Format("to_timm", 1e-5),
    "safetensors": Format("to_safetensors", 1e-5),
    "huggingface": Format("to_huggingface", 1e-5, is_folder=True),
    "onnx": Format("to_onnx", 1e-4, keeps_code=True),
    "torchscript": Format(
        "to_torchscript",
        1e-5,
        keeps_code=True,
        note="PyTorch has deprecated TorchScript; --format torch-export is what it recommends instead",
    ),
    "torch-export": Format("to_torch_export", 1e-5, keeps_code=True),
    "dino": Format("to_dino", 1e-5),
}
