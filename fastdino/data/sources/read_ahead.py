"""Pictures fetched before they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

# Each waits for the store most of the time: with answers after 50 ms they fetch 640 pictures a second.
_THREADS = 32
_MOST_BYTES = 256 << 20
# What was fetched and not taken after so many announcements is not wanted: a picture known to be unreadable.
_MOST_ANNOUNCEMENTS = 256


class _Fetch(NamedTuple):
    future: Future[bytes]
    announcement: int


class ReadAhead:
    """Fetches what has been announced, by threads, in the order of the announcements and within `most_bytes`.

    `read` gives a picture's bytes by its number, `size_of` their number beforehand. An error of `read` is raised when
    the picture is taken.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        size_of: Callable[[int], int],
        threads: int = _THREADS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._read = read
        self._size_of = size_of
        self._most_bytes = most_bytes
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="fastdino-read-ahead")
        self._lock = threading.Lock()
        self._waiting: deque[int] = deque()
        self._fetches: dict[int, _Fetch] = {}
        self._bytes = 0
        self._announcements = 0

    def announce(self, indices: Iterable[int], anew: bool) -> None:
        """These will be taken soon; with `anew`, none of those announced before will."""
        with self._lock:
            self._announcements += 1
            self._drop(self._announcements if anew else self._announcements - _MOST_ANNOUNCEMENTS)
            if anew:
                self._waiting.clear()
            self._waiting.extend(indices)
            self._begin()

    def take(self, index: int) -> bytes:
        """The picture: fetched already, on its way, or read here and now."""
        with self._lock:
            fetch = self._fetches.pop(index, None)
            if fetch is None and index in self._waiting:
                self._waiting.remove(index)
        if fetch is None:
            return self._read(index)
        try:
            # One that no thread has come to need not wait in line behind others.
            return self._read(index) if fetch.future.cancel() else fetch.future.result()
        finally:
            with self._lock:
                self._bytes -= self._size_of(index)
                self._begin()

    def _begin(self) -> None:
        while self._waiting:
            index = self._waiting[0]
            size = self._size_of(index)
            # A single one is fetched whatever its size.
            if self._fetches and self._bytes + size > self._most_bytes:
                return
            self._waiting.popleft()
            if index not in self._fetches:
                self._bytes += size
                self._fetches[index] = _Fetch(self._threads.submit(self._read, index), self._announcements)

    def _drop(self, before: int) -> None:
        """Forget the fetches of announcements before that one."""
        for index, fetch in list(self._fetches.items()):
            if fetch.announcement >= before:
                return
            fetch.future.cancel()
            del self._fetches[index]
            self._bytes -= self._size_of(index)
