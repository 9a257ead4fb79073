"""The memory that batches are prepared in: asked for a few times, then used over and over."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class BatchMemory:
    """One block for all crops of a batch, given out again when its last tensor is gone.

    With a GPU the blocks are pinned, and torch's allocator keeps them until copies to the device are over.
    """

    def __init__(self, batch_size: int, sizes: Sequence[int], dtype: torch.dtype) -> None:
        self._shapes = [(batch_size, 3, size, size) for size in sizes]
        self._dtype = dtype
        self._bytes = sum(math.prod(shape) for shape in self._shapes) * dtype.itemsize
        self._pinned = torch.cuda.is_available()
        self._free: deque[npt.NDArray[np.uint8]] = deque()

    def crops(self) -> list[torch.Tensor]:
        """One uninitialised (batch, 3, size, size) tensor a crop."""
        if self._pinned:
            block = torch.empty(self._bytes, dtype=torch.uint8, pin_memory=True)
        else:
            block = torch.from_numpy(self._lease())
        crops, start = [], 0
        for shape in self._shapes:
            end = start + math.prod(shape) * self._dtype.itemsize
            crops.append(block[start:end].view(self._dtype).view(shape))
            start = end
        return crops

    def _lease(self) -> npt.NDArray[np.uint8]:
        """A block as an array that puts it back when the array, and every tensor made of it, is gone."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._bytes, dtype=np.uint8)
        lease = _Lease(memory)
        weakref.finalize(lease, self._free.append, memory).atexit = False
        return np.asarray(lease)


class _Lease:
    """What numpy keeps alive as long as it uses the memory."""

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self.__array_interface__: dict[str, Any] = memory.__array_interface__
