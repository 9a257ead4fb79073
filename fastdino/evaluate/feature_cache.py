"""Features kept on disk between commands, so that a second look at the same pictures takes no network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdino.data.sources import Source
from fastdino.files import atomic_path, cache_folder, write_atomically


class FeatureBatch(NamedTuple):
    """Features (n, D) float32 on the CPU of the pictures at `indices`, (0,) where there are none, and names of those
    unreadable -> reason.
    """

    features: Tensor
    indices: list[int]
    skipped: dict[str, str]


class FeatureCache:
    """Files KEY.float32, rows of features, and KEY.json, what they are of, in `folder`; of at most `limit` bytes.

    Those unused for longest are removed for new ones. Where the disk is full or read-only, nothing is kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def has(self, key: str, source: Source) -> bool:
        """Whether whole features of all the source's pictures are there."""
        return self._facts(key, source) is not None

    def read(self, key: str, source: Source, batch_size: int) -> Iterator[FeatureBatch]:
        """What was kept, of a key that it has, in the source's order."""
        facts = self._facts(key, source)
        assert facts is not None
        path = self._path(key, "float32")
        # Marks it as used.
        os.utime(path)
        rows = np.memmap(path, dtype=np.float32, mode="r", shape=(facts.rows, facts.width))
        readable = [
            index for index in range(len(source)) if not facts.skipped or source.name(index) not in facts.skipped
        ]
        skipped = facts.skipped
        for start in range(0, len(rows), batch_size):
            places = slice(start, start + batch_size)
            yield FeatureBatch(torch.from_numpy(np.array(rows[places])), readable[places], skipped)
            skipped = {}

    def keeping(self, key: str, batches: Iterator[FeatureBatch]) -> Iterator[FeatureBatch]:
        """Pass `batches` on, and keep them once the last has come."""
        with contextlib.ExitStack() as stack:
            file = self._scratch_file(stack)
            facts = None if file is None else _Facts(0, 0, {})
            for batch in batches:
                if file is not None and facts is not None:
                    facts = self._add(file, batch, facts)
                yield batch
            if file is not None and facts is not None and facts.rows:
                self._finish(key, file, facts)

    def _scratch_file(self, stack: contextlib.ExitStack) -> IO[bytes] | None:
        """A file without a name, which is gone with the process, however that ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return stack.enter_context(tempfile.TemporaryFile(dir=self.folder))
        except OSError:
            return None

    def _add(self, file: IO[bytes], batch: FeatureBatch, facts: _Facts) -> _Facts | None:
        """What the file holds with `batch` added; None where it does not fit."""
        skipped = {**facts.skipped, **batch.skipped}
        if not batch.indices:
            return facts._replace(skipped=skipped)
        facts = _Facts(facts.rows + len(batch.indices), batch.features.shape[1], skipped)
        if facts.size > self.limit:
            return None
        try:
            file.write(batch.features.numpy().tobytes())
        except OSError:
            return None
        return facts

    def _finish(self, key: str, file: IO[bytes], facts: _Facts) -> None:
        try:
            self._make_room(facts.size)
            file.seek(0)
            with atomic_path(self._path(key, "float32")) as path, path.open("wb") as target:
                shutil.copyfileobj(file, target)
            write_atomically(self._path(key, "json"), json.dumps(facts._asdict()))
        except OSError:
            return

    def _make_room(self, size: int) -> None:
        kept = [(path, path.stat()) for path in self.folder.glob("*.float32")]
        total = size + sum(status.st_size for _, status in kept)
        for path, status in sorted(kept, key=lambda entry: entry[1].st_mtime_ns):
            if total <= self.limit:
                return
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            total -= status.st_size

    def _facts(self, key: str, source: Source) -> _Facts | None:
        try:
            facts = _Facts(**json.loads(self._path(key, "json").read_text(encoding="utf-8")))
            whole = self._path(key, "float32").stat().st_size == facts.size
        except (OSError, ValueError, TypeError):
            return None
        return facts if whole and facts.rows + len(facts.skipped) == len(source) else None

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f"{key}.{suffix}"


class _Facts(NamedTuple):
    rows: int
    width: int
    skipped: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return 4 * self.rows * self.width


def users_cache(gigabytes: float) -> FeatureCache | None:
    """The one in the user's cache folder; None without a home folder, or for 0 gigabytes."""
    try:
        return FeatureCache(cache_folder() / "features", int(gigabytes * 1e9)) if gigabytes > 0 else None
    except RuntimeError:
        return None
