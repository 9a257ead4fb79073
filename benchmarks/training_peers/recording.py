"""The clock of every program: torch calls it after each step of whatever optimiser."""

from __future__ import annotations

import time
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook


def record_steps(path: str) -> None:
    """From here on append to `path` the second at which each optimiser step ends."""
    file = Path(path).open("w", buffering=1)  # noqa: SIM115 (open until the process ends)
    register_optimizer_step_post_hook(lambda *_: print(time.monotonic(), file=file))
