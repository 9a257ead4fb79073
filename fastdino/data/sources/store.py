"""Parts of files in a store that fsspec knows: s3://, gs://, https://, memory://, file:// and others."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from fastdino.data.sources.scan import natural
from fastdino.data.sources.tar import expanded
from fastdino.errors import UserError

_T = TypeVar("_T")
_ATTEMPTS = 5
_FIRST_PAUSE = 0.5  # seconds; the next ones are twice as long each
# What another attempt does not mend.
_FINAL = (FileNotFoundError, IsADirectoryError, PermissionError)


class Facts(NamedTuple):
    """A file's size in bytes, and what changes when the file does."""

    size: int
    fingerprint: str


class Store:
    """The store of a URL, in this process: its clients survive neither a fork nor pickling.

    Raises UserError for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise UserError("pictures from a URL need fsspec: pip install 'fastdino[remote]'") from error
        self.url = url
        try:
            self._fs, _ = fsspec.core.url_to_fs(url)
        # The store's own package is missing, or there is no such store.
        except (ImportError, ValueError) as error:
            raise UserError(f"{url} cannot be opened: {error}") from error

    def shards(self) -> list[str]:
        """The tar files that the URL means, as paths within the store. Raises UserError if there are none."""
        try:
            return [path for one in expanded(self.url) for path in self._matching(self._fs._strip_protocol(one))]
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self.url} cannot be listed: {_reason(error)}") from error

    def facts(self, path: str) -> Facts:
        """Raises UserError if the file is not there or its size cannot be known."""
        try:
            size = self._persistently(lambda: self._fs.info(path))["size"]
            fingerprint = self._fs.ukey(path)
        except FileNotFoundError as error:
            raise self._nothing_at(path) from error
        except Exception as error:
            raise UserError(f"The shard {path} of {self.url} cannot be read: {_reason(error)}.") from error
        if size is None:
            raise UserError(f"{self.url} does not say how long its files are, and can be read only as a whole")
        return Facts(int(size), str(fingerprint))

    def read(self, path: str, offset: int, size: int) -> bytes:
        """`size` bytes of a file, fewer at its end. Tries again; then raises OSError."""
        if size == 0:
            return b""
        data: bytes = self._persistently(lambda: self._fs.cat_file(path, start=offset, end=offset + size))
        if len(data) > size:
            raise UserError(f"{self.url} gives whole files where a part is asked for: copy them to another store")
        return data

    def require_an_answer(self, paths: Sequence[str], reason: OSError) -> None:
        """Raises UserError, with `reason`, if not one byte of any of `paths` can be had."""
        for path in paths:
            try:
                self._fs.cat_file(path, start=0, end=1)
                return
            except Exception:
                continue
        raise UserError(
            f"{self.url} has stopped answering ({_reason(reason)}): see that it can be reached; the same command then "
            "goes on"
        ) from reason

    def _matching(self, path: str) -> list[str]:
        if "*" in path:
            found = self._fs.glob(path)
        elif path.endswith(".tar") or not self._fs.isdir(path):
            found = [path]
        else:
            found = [name for name in self._fs.ls(path, detail=False) if name.endswith(".tar")]
        if not found:
            raise self._nothing_at(path)
        return sorted(found, key=natural)

    def _nothing_at(self, path: str) -> UserError:
        return UserError(f"There is no tar file {self._fs.unstrip_protocol(path)}: give one, a folder or a pattern.")

    def _persistently(self, do: Callable[[], _T]) -> _T:
        for attempt in range(_ATTEMPTS):
            try:
                return do()
            except _FINAL:
                raise
            # Each store has exceptions of its own for a connection that breaks.
            except Exception as error:
                if attempt == _ATTEMPTS - 1:
                    raise OSError(_reason(error)) from error
                time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


class StoredFile(io.RawIOBase):
    """A file of a store, read in parts from anywhere in it."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        self._store, self._path, self._size = store, path, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._store.read(self._path, self._position, max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    return said or type(error).__name__
