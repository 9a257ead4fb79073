"""Where the processes of one start meet, apart from those of an earlier start that may have met there."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

# Seconds between two looks at whether the others have come.
INTERVAL = 0.05


def meet(dist_url: str, rank: int, size: int, patience: timedelta) -> Store:
    """A store that exactly the processes of this start share.

    torchrun keeps its store when it starts the processes again, with the addresses of those that are gone, to which
    gloo would then connect. So rank 0 calls, the others answer with names of their own, and it lets in those who
    answered this call.

    Raises RuntimeError if they do not come within `patience`, and what torch raises for a place that is none.
    """
    store, *_ = next(rendezvous(dist_url, rank, size, timeout=patience))
    own, deadline = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    members = _let_in(store, own, size, deadline) if rank == 0 else _answer(store, own, rank, deadline)
    return PrefixStore(members[0], store)


def _let_in(store: Store, own: str, size: int, deadline: float) -> list[str]:
    """Rank 0's part: the names of all, its own first."""
    store.set("call", own)
    names = {0: own}
    while len(names) < size:
        for rank in range(1, size):
            if rank not in names and store.check([f"answer/{rank}"]):
                call, name = json.loads(store.get(f"answer/{rank}"))
                if call == own:
                    names[rank] = name
        if len(names) < size:
            missing = next(rank for rank in range(size) if rank not in names)
            _wait(deadline, f"rank {missing} has not come")
    members = [names[rank] for rank in range(size)]
    store.set("members", json.dumps(members))
    return members


def _answer(store: Store, own: str, rank: int, deadline: float) -> list[str]:
    """Another rank's part: answer each call, the last of an earlier start too, until it is let in."""
    answered = b""
    while True:
        if store.check(["call"]) and (call := store.get("call")) != answered:
            store.set(f"answer/{rank}", json.dumps([call.decode(), own]))
            answered = call
        if store.check(["members"]):
            members: list[str] = json.loads(store.get("members"))
            if own in members:
                return members
        _wait(deadline, "not all have come")


def _wait(deadline: float, otherwise: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(otherwise)
    time.sleep(INTERVAL)
