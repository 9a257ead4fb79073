"""Files of features, written as they come: only a batch, or a row group, is in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from fastdino.errors import UserError
from fastdino.files import atomic_path

# Readers of Parquet work by row groups; hundreds of rows in one would be slow to read.
ROWS_IN_GROUP = 8192


class Rows(NamedTuple):
    """Some pictures: their names, their classes (None where there is none) and features (n, D) float32."""

    names: list[str]
    classes: list[str | None]
    features: npt.NDArray[np.float32]


def write_parquet(output: Path, width: int, batches: Iterable[Rows]) -> int:
    """Columns `name`, `class` and `features`, a list of `width` float32. Returns the number of rows."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UserError(
            "Parquet takes pyarrow: pip install 'fastdino[parquet]', or give --output a .npy file"
        ) from error
    vectors = pa.list_(pa.float32(), width)
    schema = pa.schema([("name", pa.string()), ("class", pa.string()), ("features", vectors)])
    count = 0
    with atomic_path(output) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for rows in _gathered(batches):
            count += len(rows.names)
            features = pa.FixedSizeListArray.from_arrays(pa.array(rows.features.ravel()), width)
            writer.write_table(pa.table([pa.array(rows.names), pa.array(rows.classes, pa.string()), features], schema))
    return count


def write_npy(output: Path, width: int, batches: Iterable[Rows]) -> int:
    """An array (n, width) float32, and beside it the names, a line each. Returns the number of rows."""
    names = output.with_name(f"{output.name}.names.txt")
    count = 0
    with (
        atomic_path(names) as listing,
        atomic_path(output) as temporary,
        tempfile.TemporaryFile(dir=output.parent) as values,
        listing.open("w", encoding="utf-8") as lines,
    ):
        for rows in batches:
            values.write(rows.features.tobytes())
            lines.writelines(f"{name}\n" for name in rows.names)
            count += len(rows.names)
        lines.flush()
        with temporary.open("wb") as file:
            _finish(values, file, count, width)
    return count


def write_npz(output: Path, width: int, batches: Iterable[Rows]) -> int:
    """Arrays `features` (n, width) float32, `names` and `classes` (n,), the empty text for no class.

    Names are kept in memory until the end. Returns the number of rows.
    """
    names: list[str] = []
    classes: list[str] = []
    with atomic_path(output) as temporary, tempfile.TemporaryFile(dir=output.parent) as values:
        for rows in batches:
            values.write(rows.features.tobytes())
            names += rows.names
            classes += [name or "" for name in rows.classes]
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open("features.npy", "w", force_zip64=True) as file:
                _finish(values, file, len(names), width)
            for member, texts in (("names.npy", names), ("classes.npy", classes)):
                with archive.open(member, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.array(texts, dtype=np.str_), allow_pickle=False)
    return len(names)


WRITERS: dict[str, Callable[[Path, int, Iterable[Rows]], int]] = {
    ".parquet": write_parquet,
    ".npy": write_npy,
    ".npz": write_npz,
}


def _finish(values: IO[bytes], file: IO[bytes], count: int, width: int) -> None:
    """The header, which has to know the number of rows, and then the values."""
    values.seek(0)
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        "fortran_order": False,
        "shape": (count, width),
    }
    np.lib.format.write_array_header_1_0(file, header)
    shutil.copyfileobj(values, file)


def _gathered(batches: Iterable[Rows]) -> Iterable[Rows]:
    """The same rows in pieces of ROWS_IN_GROUP and less than a batch more; the last one smaller."""
    waiting: list[Rows] = []
    for rows in batches:
        waiting.append(rows)
        if sum(len(piece.names) for piece in waiting) >= ROWS_IN_GROUP:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[Rows]) -> Rows:
    names = [name for piece in pieces for name in piece.names]
    classes = [name for piece in pieces for name in piece.classes]
    return Rows(names, classes, np.concatenate([piece.features for piece in pieces]))
