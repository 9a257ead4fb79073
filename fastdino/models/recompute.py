"""Values that are cheap to compute again, computed again in the backward pass instead of kept for it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_settings = threading.local()


@contextmanager
def nothing_forgotten() -> Iterator[None]:
    """Within it `forgotten` does nothing: for what runs again as a whole, whose own hooks must see every value."""
    before = getattr(_settings, "forgets", True)
    _settings.forgets = False
    try:
        yield
    finally:
        _settings.forgets = before


@contextmanager
def forgotten(value: Tensor, again: Callable[[], Tensor]) -> Iterator[None]:
    """What is computed from `value` within it does not keep it: its gradients come from `again()`, its equal.

    For results of few operations on what is kept anyway. The bits are the same where `again` computes as before.
    """
    # A compiler decides for itself what to compute again.
    if torch.compiler.is_compiling() or not getattr(_settings, "forgets", True):
        yield
        return
    # By its storage, which tensors without memory have too; a reference to it would keep the value.
    storage, size = weakref.ref(value.untyped_storage()), value.shape

    def pack(kept: Tensor) -> Any:
        return again if kept.untyped_storage() is storage() and kept.shape == size else kept

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return kept()

    with saved_tensors_hooks(pack, unpack):
        yield
