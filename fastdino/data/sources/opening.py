"""From what the user gives to a source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastdino.data.sources.folder import FolderSource
from fastdino.data.sources.iterable import IterableSource
from fastdino.data.sources.protocol import Source
from fastdino.data.sources.tar import TarSource
from fastdino.errors import UserError


def open_source(data_path: str | os.PathLike[str] | Source | Iterable[Any]) -> Source:
    """The source that `data_path` means: a folder's pictures; the tar shards that it holds instead of pictures, that it
    names, or that its pattern matches, in a store if it is a URL; the source that it already is; or an iterable of
    bytes.

    Raises UserError for anything else, and where nothing can be read.
    """
    if isinstance(data_path, str) and "://" in data_path:
        # A folder's pictures are read without it.
        from fastdino.data.sources.remote import RemoteTarSource

        return RemoteTarSource(data_path)
    if isinstance(data_path, (str, os.PathLike)):
        return TarSource(data_path) if _names_shards(Path(data_path)) else FolderSource(data_path)
    if isinstance(data_path, Source):
        return data_path
    if isinstance(data_path, Iterable) and not isinstance(data_path, (str, bytes, bytearray)):
        pictures: Iterable[Any] = data_path
        return IterableSource(pictures)
    raise UserError(
        f"No pictures can be had from a {type(data_path).__name__}: give a folder, tar shards, a source or an iterable "
        "of encoded pictures."
    )


def _names_shards(path: Path) -> bool:
    if path.suffix == ".tar":
        return True
    try:
        names = [entry.name for entry in os.scandir(path) if not entry.name.startswith(".")]
    except OSError:
        return False
    # `fastdino pack` writes lists beside its shards.
    return any(name.endswith(".tar") for name in names) and all(
        name.endswith((".tar", ".json", ".txt")) for name in names
    )
