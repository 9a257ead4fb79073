"""torch.export's program (.pt2), for PyTorch without our code, AOTInductor and ExecuTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from fastdino.errors import UserError
from fastdino.export.formats import Features
from fastdino.export.plain import dynamic_shapes, example, plain
from fastdino.models.pretrained import Backbone


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """A program with its weights. Raises UserError for a name that torch.export.load would refuse."""
    if path.suffix != ".pt2":
        raise UserError(
            f"torch.export loads files ending in .pt2 alone, and {path.name} does not: give another --output"
        )
    with torch.no_grad():
        program = torch.export.export(
            plain(backbone, fixed_size=fixed_size),
            (example(backbone, fixed_size),),
            dynamic_shapes=dynamic_shapes(backbone, fixed_size),
        )
    torch.export.save(program, path)


def load(path: Path, backbone: Backbone) -> Features:
    """The program as a module."""
    module: Features = torch.export.load(path).module()
    return module


def usage(path: Path, backbone: Backbone) -> str:
    """The line of Python that loads it."""
    return f'model = torch.export.load("{path}").module()'
