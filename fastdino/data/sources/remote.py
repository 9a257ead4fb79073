"""Pictures in tar shards that lie in a store."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from fastdino.data.sources.protocol import check_index, check_size
from fastdino.data.sources.read_ahead import ReadAhead
from fastdino.data.sources.store import Store, StoredFile
from fastdino.data.sources.tar import TarMembers
from fastdino.data.sources.tar_index import Index, index_of

# While the shards are read through: some headers of small pictures with each request, none fetched in vain of large.
_BLOCK = 1 << 20
_INDEXING_THREADS = 32


class _Here(NamedTuple):
    """What a process has for itself."""

    store: Store
    ahead: ReadAhead


class RemoteTarSource(TarMembers):
    """The pictures of tar files behind a URL that fsspec knows: a file's, a folder's, or a pattern's.

    Each shard's headers are read once, many shards at a time, and the list kept between runs while the store says that
    the shard is the same. A picture is read as a part of its shard. The loader announces which ones come next, and
    threads fetch these, at most 256 MB at a time.

    What cannot be read is tried again for some seconds. A picture that cannot be had then raises OSError, and UserError
    if the whole store does not answer. Raises UserError for a URL that cannot be used, and what `TarSource` does.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._by_process: dict[int, _Here] = {}
        store = self._here().store
        paths = store.shards()
        with ThreadPoolExecutor(min(len(paths), _INDEXING_THREADS)) as threads:
            super().__init__(paths, list(threads.map(lambda path: _index(store, path), paths)))

    def read(self, index: int) -> bytes:
        check_index(index, len(self))
        return self._here().ahead.take(index)

    def announce(self, indices: npt.NDArray[np.int64], anew: bool) -> None:
        """These pictures are read soon, in this order; with `anew`, none of those announced before."""
        self._here().ahead.announce(indices.tolist(), anew)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_by_process": {}}

    def _here(self) -> _Here:
        # A forked process inherits threads that do not run in it, and clients that must not be used in it.
        here = self._by_process.get(os.getpid())
        if here is None:
            here = _Here(Store(self.url), ReadAhead(self._fetch, lambda index: int(self._size[index])))
            here = self._by_process.setdefault(os.getpid(), here)
        return here

    def _fetch(self, index: int) -> bytes:
        size = int(self._size[index])
        check_size(size)
        store, path = self._here().store, self.shards[self._file[index]]
        try:
            data = store.read(path, int(self._offset[index]), size)
        except FileNotFoundError as error:
            raise OSError("the shard is gone") from error
        except OSError as error:
            # Of other shards, in case this one alone is at fault.
            others = [shard for shard in self.shards[:3] if shard != path]
            store.require_an_answer(others or [path], error)
            raise
        if len(data) < size:
            raise OSError("the shard ends before the picture does")
        return data


def _index(store: Store, path: str) -> Index:
    facts = store.facts(path)
    said = f"{path} of {store.url}"

    def opened() -> IO[bytes]:
        return cast("IO[bytes]", io.BufferedReader(StoredFile(store, path, facts.size), _BLOCK))

    return index_of(f"{store.url}\0{path}\0{facts.size}\0{facts.fingerprint}", facts.size, said, opened)
