"""Before any test: Triton interprets, and kernels/ is fastdino.kernels even where nothing is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import fastdino

# Kernels are interpreted or compiled according to what stood here when their module was imported, by whichever test.
os.environ["TRITON_INTERPRET"] = "1"

if importlib.util.find_spec("fastdino.kernels") is None:
    fastdino.__path__.append(str(Path(__file__).parents[1]))
