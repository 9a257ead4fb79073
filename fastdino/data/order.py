"""The order of an epoch: a keyed permutation that is computed, never stored.

A Feistel network permutes the smallest power of two that holds every index; a result outside the range goes
through the network again until it falls inside (cycle walking: Black and Rogaway, "Ciphers with arbitrary
finite domains", 2002). That is an exact bijection of any range in constant memory, so a billion pictures need
no list, any worker can look up any position, and resuming in the middle of an epoch costs nothing.

This text is the specification; every number is an unsigned 64-bit integer and wraps.

    mix(x)    splitmix64's finaliser: x ^= x >> 30; x *= 0xBF58476D1CE4E5B9; x ^= x >> 27;
              x *= 0x94D049BB133111EB; x ^= x >> 31
    key[i]    mix(mix(mix(seed + G) + epoch + G) + (i + 1) * G), i = 0 .. 7, with G = 0x9E3779B97F4A7C15
    bits      max(2, bit length of length - 1); the low half has bits // 2 bits, the high half the rest
    round i   even: high ^= mix(low + key[i]) & high mask      odd: low ^= mix(high + key[i]) & low mask
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_ROUNDS = 8


class EpochOrder:
    """The permutation of `range(length)` that (seed, epoch) selects.

    `order[positions]` maps an integer array of positions in the epoch, each in [0, length), to an int64 array
    of picture indices of the same shape. Raises IndexError for a position outside the epoch.
    """

    def __init__(self, seed: int, epoch: int, length: int) -> None:
        if not 0 < length < 1 << 62:
            raise ValueError(f"length must be between 1 and 2**62, not {length}")
        self.length = length
        stream = _mix_int(_mix_int(seed + _GOLDEN) + epoch + _GOLDEN)
        self._keys = np.array(
            [_mix_int(stream + (i + 1) * _GOLDEN) for i in range(_ROUNDS)],
            dtype=np.uint64,
        )
        bits = max(2, (length - 1).bit_length())
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << bits // 2) - 1)
        self._high_mask = np.uint64((1 << bits - bits // 2) - 1)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        start = np.asarray(positions, dtype=np.int64)
        if start.size and (start.min() < 0 or start.max() >= self.length):
            raise IndexError(f"positions run from 0 to {self.length - 1}")
        index = self._permute(start.astype(np.uint64).reshape(-1))
        outside = np.flatnonzero(index >= self.length)
        while outside.size:
            index[outside] = self._permute(index[outside])
            outside = outside[index[outside] >= self.length]
        return index.astype(np.int64).reshape(start.shape)

    def _permute(self, value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        low, high = value & self._low_mask, value >> self._low_bits
        for i, key in enumerate(self._keys):
            if i % 2 == 0:
                high ^= _mix(low + key) & self._high_mask
            else:
                low ^= _mix(high + key) & self._low_mask
        return high << self._low_bits | low


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def _mix_int(value: int) -> int:
    return int(_mix(np.array([value & _WORD], dtype=np.uint64))[0])
