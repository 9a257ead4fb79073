"""Indexes of large sources, kept between runs in the user's cache folder: $XDG_CACHE_HOME/fastdino or
~/.cache/fastdino. It may be deleted at any time.

An index is a convenience: one that is missing, damaged, foreign or cannot be written is made anew without a word.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdino.files import atomic_path, cache_folder

# Changes with what the arrays mean.
_FORMAT = "1"

Arrays = Mapping[str, npt.NDArray[Any]]


def load(kind: str, subject: str) -> Arrays | None:
    """The arrays that were stored for `subject`, None if there are none that can be used."""
    try:
        path = _path(kind, subject)
        # Stored, not packed: no file there takes more memory than its own size.
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return None
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    # A damaged file can make numpy and zipfile raise anything (BadZipFile, NotImplementedError, AttributeError, ...).
    except Exception:
        return None
    return arrays if arrays.get("format") == np.array(_FORMAT) else None


def store(kind: str, subject: str, arrays: Arrays) -> None:
    """Keep arrays for the next `load` of `subject`; if that is impossible, nothing happens."""
    try:
        path = _path(kind, subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as unfinished, open(unfinished, "wb") as file:
            np.savez(file, **{**arrays, "format": np.array(_FORMAT)})  # type: ignore[arg-type]
    # RuntimeError: there is no home folder, as in containers that run under any number.
    except (OSError, RuntimeError):
        return


def _path(kind: str, subject: str) -> Path:
    digest = hashlib.blake2b(os.fsencode(subject), digest_size=16).hexdigest()
    return cache_folder() / f"{kind}-{digest}.npz"
