"""Short names for a model and for a source's pictures that change when they do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import numpy as np
import PIL
import torch
from torch import nn

import fastdino
from fastdino.data.sources import FileTable, Source, file_table

# Other versions may compute or decode a little differently.
_VERSIONS = (fastdino.__version__, torch.__version__, PIL.__version__)


def of_features(model: nn.Module, source: Source, size: int, cut: Callable[..., object], device: str) -> str | None:
    """All that features depend on, None where the source does not say where its pictures lie."""
    table = file_table(source)
    if table is None:
        return None
    parts = (*_VERSIONS, of_model(model), of_files(table), str(size), cut.__name__, device)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def of_model(model: nn.Module) -> str:
    """Its weights, their names, and the classes and plain settings of all modules."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        # Numbers of heads or blocks show in no weight.
        plain = sorted((key, value) for key, value in vars(module).items() if isinstance(value, int | float | str))
        settings = [(key, value) for key, value in plain if key != "training"]
        digest.update(repr((name, type(module).__qualname__, settings)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def of_files(table: FileTable) -> str:
    """Names, sizes and times of last change of the files, and where in them the pictures lie.

    The pictures themselves are not read, which would take longer than many a network; a copy of a folder that does not
    keep the times is another one.
    """
    digest = hashlib.sha256(table.names)
    stats = np.empty((len(table.ends), 2), dtype=np.int64)
    for file in range(len(table.ends)):
        try:
            status = os.stat(table.file_name(file))
        except OSError:
            stats[file] = -1
        else:
            stats[file] = status.st_size, status.st_mtime_ns
    for array in (table.ends, stats, table.file, table.offset, table.size):
        digest.update(b"" if array is None else array.tobytes())
    return digest.hexdigest()
