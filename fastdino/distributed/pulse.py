"""Which process is missing when the others wait in vain.

A transfer that fails says that a connection broke or that time ran out, not whose fault it is. So every process gives a
sign of life now and then where all of them met; when a transfer has failed, the signs tell who gives none any more, or
who is behind.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import NamedTuple

from torch.distributed import DistError, Store

from fastdino.errors import TrainingFailed, UserError

# Seconds between two signs, so that a store serves thousands of processes, and how long a live one may give none.
BEAT = 2.0
SILENCE = 3 * BEAT
# Seconds after which a store that has not answered is out of reach: it may itself be behind the link that is cut.
ANSWER = 10.0
VERDICT = "verdict"
# gloo raises plain RuntimeErrors: most begin with the line of its source, the rest are its own word for a late one.
OF_GLOO = re.compile(r"/gloo/|Application timeout caused pair closure")
REMEDY = "the same command goes on from the last checkpoint"


class Sign(NamedTuple):
    """What a process last told: how many signs it has given, which step it has begun, where it runs."""

    given: int
    step: int
    host: str


class Pulse:
    """One process's signs of life in `store`, and what those of the others say.

    Leaving it as a context ends the signs. To be made before the first transfer, so that all have given one by then.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.step = 0
        self._store, self._rank, self._size = store.clone(), rank, size
        self._host = socket.gethostname()
        self._count = 0
        self._ended = threading.Event()
        self._give_sign()

    def __enter__(self) -> Pulse:
        # A daemon: a store out of reach may hold it up for ever.
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def leave(self, error: Exception) -> None:
        """Tell the others why this process ends, for those who will wait for it."""
        reason = str(error) if isinstance(error, (UserError, TrainingFailed)) else f"{type(error).__name__}: {error}"
        self._within(ANSWER, lambda: self._agree(f"{self._name(self._rank, self._host)} ended: {reason}"))

    def explain(self, error: Exception) -> str:
        """Why a transfer failed with `error`, in a sentence: the same on all that reach the store."""
        verdict = self._within(SILENCE + ANSWER, self._verdict)
        if verdict is None:
            verdict = (
                f"{self._name(self._rank, self._host)} reaches neither the other processes nor the place where they "
                f"met: the network is down, or the machine of rank 0"
            )
        return f"{verdict} ({_reason(error)}); {REMEDY}"

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self._give_sign()
            except DistError:
                # The place where they met is gone, and with it everyone who could ask.
                return

    def _give_sign(self) -> None:
        self._count += 1
        self._store.set(_key(self._rank), json.dumps(Sign(self._count, self.step, self._host)))

    def _verdict(self) -> str:
        if self._store.check([VERDICT]):
            return self._store.get(VERDICT).decode()
        before = self._signs()
        time.sleep(SILENCE)
        after = self._signs()
        silent = [rank for rank, sign in enumerate(after) if sign.given == before[rank].given]
        return self._agree(self._found(silent, after))

    def _found(self, silent: Sequence[int], signs: Sequence[Sign]) -> str:
        farthest = max(sign.step for sign in signs)
        behind = [rank for rank, sign in enumerate(signs) if sign.step < farthest]
        if silent:
            return f"{self._names(silent, signs)} gave no sign of life: killed, stopped, or cut off from the network"
        if behind:
            return f"{self._names(behind, signs)} did not come to step {farthest}, where the others waited"
        return f"{self._name(self._rank, self._host)} lost the other processes, which are alive"

    def _agree(self, verdict: str) -> str:
        """The first process's verdict is everyone's: those who end because of it would look missing to the next."""
        return self._store.compare_set(VERDICT, "", verdict).decode()

    def _signs(self) -> list[Sign]:
        return [Sign(*json.loads(sign)) for sign in self._store.multi_get([_key(rank) for rank in range(self._size)])]

    def _names(self, ranks: Sequence[int], signs: Sequence[Sign]) -> str:
        named = [self._name(rank, signs[rank].host) for rank in ranks[:4]]
        return ", ".join(named) + (f" and {len(ranks) - 4} more" if len(ranks) > 4 else "")

    @staticmethod
    def _name(rank: int, host: str) -> str:
        return f"rank {rank} on {host}"

    @staticmethod
    def _within(seconds: float, ask: Callable[[], str]) -> str | None:
        """What `ask` returns, None if it does not in time."""
        answers: SimpleQueue[str | None] = SimpleQueue()

        def answer() -> None:
            try:
                answers.put(ask())
            except DistError:
                answers.put(None)

        threading.Thread(target=answer, daemon=True).start()
        try:
            return answers.get(timeout=seconds)
        except Empty:
            return None


@contextmanager
def failures_named(pulse: Pulse) -> Iterator[None]:
    """Raises TrainingFailed with `pulse`'s explanation for a transfer that fails, and tells the others of all else."""
    try:
        yield
    except Exception as error:
        if not _is_of_a_transfer(error):
            pulse.leave(error)
            raise
        raise TrainingFailed(pulse.explain(error)) from error


def _is_of_a_transfer(error: Exception) -> bool:
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and bool(OF_GLOO.search(str(error))))


def _reason(error: Exception) -> str:
    """The first sentence of an error, without the line of the source that raised it."""
    return re.sub(r"^\[\S*\]\s*", "", str(error)).split("\n")[0].split(". ")[0].rstrip(".")


def _key(rank: int) -> str:
    return f"sign/{rank}"
