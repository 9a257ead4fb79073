"""Pickles of plain data, without the code that a pickle can run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastdino.errors import UserError


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


# What numpy's arrays and numbers are put together with; its modules changed their names with version 2.
_reconstruct: Callable[..., Any] = np.ndarray(0).__reduce__()[0]  # type: ignore[assignment]
_scalar: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]
_frombuffer: Callable[..., Any] = np.zeros(1).__reduce_ex__(5)[0]  # type: ignore[assignment]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # How Python 3 writes bytes for Python 2.
    ("_codecs", "encode"): _latin1,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"{package}.{module}", name): function
        for package in ("numpy.core", "numpy._core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_plain_pickle(path: Path) -> Any:
    """What is pickled in a file that holds nothing but dicts, lists, texts, numbers and numpy's arrays.

    Raises UserError for a file that asks for anything else, before any of that runs, and for one that is no pickle.
    """
    try:
        with path.open("rb") as file:
            # Python 2 wrote the bytes of arrays as text.
            return _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:
        # Arbitrary bytes fail in arbitrary places, with errors of any kind.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is no pickle of plain lists and numbers ({reason}): give the file that its authors publish, or "
            "the same as JSON"
        ) from error
