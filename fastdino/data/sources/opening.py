"""From what the user gives to a source."""

from __future__ import annotations

import os

from fastdino.data.sources.folder import FolderSource
from fastdino.data.sources.protocol import Source
from fastdino.errors import UserError


def open_source(data_path: str | os.PathLike[str] | Source) -> Source:
    """The source that `data_path` means: a folder's pictures, or the source that it already is.

    Raises UserError for anything else, and where nothing can be read.
    """
    if isinstance(data_path, (str, os.PathLike)):
        return FolderSource(data_path)
    if isinstance(data_path, Source):
        return data_path
    raise UserError(f"No pictures can be had from a {type(data_path).__name__}: give a folder or a source.")
