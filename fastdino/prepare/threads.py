"""One function over many pictures, by threads; Pillow and libjpeg-turbo let go of the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# Pictures in flight for each thread: enough that none waits while one result takes long.
_AHEAD = 4


def in_order(work: Callable[[int], Result], indices: Iterable[int], threads: int) -> Generator[Result, None, None]:
    """`work(index)` of every index, computed by `threads` threads, in the order of `indices`.

    Few are in flight at a time, so memory does not grow with their number. Whatever `work` raises ends the iteration.
    """
    pending: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(threads)
    try:
        for index in indices:
            pending.append(executor.submit(work, index))
            if len(pending) >= _AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
