"""Some of a source's pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fastdino.data.sources.protocol import FileTable, Source, announcing, file_table


class Subset:
    """Some of another source's pictures, in the order of `indices`."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = np.array(indices, dtype=np.int64)
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> bytes:
        return self.source.read(int(self.indices[index]))

    def name(self, index: int) -> str:
        """Its name in the source."""
        return self.source.name(int(self.indices[index]))

    def label(self, index: int) -> int:
        return self.source.label(int(self.indices[index]))

    @property
    def announce(self) -> Callable[[npt.NDArray[np.int64], bool], None] | None:
        """That of the source, None where it has none."""
        announce = announcing(self.source)
        if announce is None:
            return None
        return lambda indices, anew: announce(self.indices[indices], anew)

    def files(self) -> FileTable | None:
        """Where its pictures lie on disk, None where the source does not say."""
        table = file_table(self.source)
        if table is None:
            return None
        indices = self.indices
        if table.file is not None and table.offset is not None and table.size is not None:
            return table._replace(file=table.file[indices], offset=table.offset[indices], size=table.size[indices])
        starts = np.concatenate([[0], table.ends[:-1]])
        spans = zip(starts[indices].tolist(), table.ends[indices].tolist(), strict=True)
        names = b"".join(table.names[start:end] for start, end in spans)
        return table._replace(names=names, ends=np.cumsum((table.ends - starts)[indices], dtype=np.int64))
