"""Follows the memory of every tensor from its creation to its end."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryMeter(TorchDispatchMode):
    """Within it, what operations allocate is counted for as long as it lives, under a category.

    Tensors without memory (FakeTensorMode, to be entered first) count as those with memory do. What an operation needs
    for itself alone and frees before it returns is not seen.

    Args:
        categorise: names the category of a new tensor.

    Attributes:
        live: bytes alive.
        peak: most bytes alive at once since the last `reset_peak`.
    """

    def __init__(self, categorise: Callable[[Tensor], str]) -> None:
        super().__init__()
        self._categorise = categorise
        # By storage, as long as it lives: its bytes, and a list whose one entry is its category.
        self._alive: dict[int, tuple[int, list[str]]] = {}
        self._keys: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()
        self._created = 0
        self.live = 0
        self.reset_peak()

    def reset_peak(self) -> None:
        """Look for the peak from here on."""
        self.peak = self.live
        self._at_peak = list(self._alive.values())

    def at_peak(self) -> Counter[str]:
        """The peak's bytes by category."""
        counted: Counter[str] = Counter()
        for size, (category,) in self._at_peak:
            counted[category] += size
        return counted

    def recategorise(self, tensor: Tensor, category: str) -> None:
        """Count a tensor under another category, at a peak that has been, too."""
        key = self._keys.get(tensor.untyped_storage())
        if key is not None and key in self._alive:
            self._alive[key][1][0] = category

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._keys:
            return
        self._created += 1
        key, size = self._created, storage.nbytes()
        self._keys[storage] = key
        self._alive[key] = size, [self._categorise(tensor)]
        weakref.finalize(storage, self._forget, key).atexit = False
        self.live += size
        if self.live > self.peak:
            self.reset_peak()

    def _forget(self, key: int) -> None:
        self.live -= self._alive.pop(key)[0]
