"""Training: one step, the loop around it, checkpoints and what is reported.

The package can be called: `fastdino.train(config)` is `fastdino.train.run.train(config)`. Importing any module in here
makes Python set the package as the attribute `fastdino.train`, so a function of that name could not last.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdino.config import TrainConfig
    from fastdino.data.sources import Source
    from fastdino.train.run import TrainResult


class _CallablePackage(ModuleType):
    def __call__(self, config: TrainConfig, *, held_out: Source | None = None) -> TrainResult:
        from fastdino.train.run import train

        return train(config, held_out=held_out)


sys.modules[__name__].__class__ = _CallablePackage
