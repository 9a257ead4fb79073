"""Values that change over training: learning rate, weight decay, teacher momentum, teacher temperature."""

from __future__ import annotations

import numpy as np


def cosine_scheduler(
    base_value: float,
    final_value: float,
    epochs: int,
    niter_per_ep: int,
    warmup_epochs: int = 0,
    start_warmup_value: float = 0.0,
) -> np.ndarray:
    """One float64 value per step: linear from `start_warmup_value` to `base_value`, then cosine to `final_value`.

    The cosine never reaches `final_value` itself: that would be the step after the last. Raises ValueError if the
    warm-up is longer than the training.
    """
    if warmup_epochs > epochs:
        raise ValueError(f"a warm-up of {warmup_epochs} epochs does not fit into {epochs} epochs")
    warmup = np.linspace(start_warmup_value, base_value, warmup_epochs * niter_per_ep)
    steps = (epochs - warmup_epochs) * niter_per_ep
    progress = np.arange(steps) / max(steps, 1)
    cosine = final_value + 0.5 * (base_value - final_value) * (1 + np.cos(np.pi * progress))
    return np.concatenate((warmup, cosine))


def teacher_temperatures(warmup_value: float, value: float, warmup_epochs: int, epochs: int) -> np.ndarray:
    """One float64 temperature per epoch: linear over `warmup_epochs` (both ends included), then constant."""
    if warmup_epochs > epochs:
        raise ValueError(f"a temperature warm-up of {warmup_epochs} epochs does not fit into {epochs} epochs")
    return np.concatenate(
        (
            np.linspace(warmup_value, value, warmup_epochs),
            np.full(epochs - warmup_epochs, value, dtype=np.float64),
        )
    )
