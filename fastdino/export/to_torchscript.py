"""TorchScript, for programs in C++ and without our code."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from fastdino.export.formats import Features
from fastdino.export.plain import example, plain
from fastdino.models.pretrained import Backbone


def write(backbone: Backbone, path: Path, fixed_size: bool) -> None:
    """A traced module. Sizes of pictures stay open where the network's computation does not depend on them."""
    with torch.no_grad(), warnings.catch_warnings():
        # Deprecation, which the command says in one line, and shapes that are constant because they may be.
        warnings.simplefilter("ignore")
        module = plain(backbone, fixed_size=fixed_size)
        traced = torch.jit.trace(module, example(backbone, fixed_size), check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), path)


def load(path: Path, backbone: Backbone) -> Features:
    """The module on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Features = torch.jit.load(path, map_location="cpu")
    return module


def usage(path: Path, backbone: Backbone) -> str:
    """The line of Python that loads it."""
    return f'model = torch.jit.load("{path}")'
