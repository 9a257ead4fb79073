"""Arrays that facebookresearch/dino's own code produced, and small pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the lists of the tests' sources out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """Reads golden/<name>.safetensors."""
    return lambda name: load_file(GOLDEN / f"{name}.safetensors")


@pytest.fixture(scope="session")
def golden_meta() -> dict[str, Any]:
    """Settings with which the golden arrays were made."""
    return json.loads((GOLDEN / "meta.json").read_text())


@pytest.fixture(scope="session")
def golden_schedules() -> dict[str, Any]:
    """Schedules of the original."""
    return json.loads((GOLDEN / "schedules.json").read_text())


@pytest.fixture(scope="session")
def golden_checkpoint() -> Path:
    """A checkpoint in the original's own format, argparse.Namespace and numpy scalars included."""
    return GOLDEN / "checkpoint.pth"


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders with six small pictures each: red-ish and blue-ish noise."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        (root / name).mkdir()
        for index in range(6):
            pixels = generator.integers(0, 100, (40, 48, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root
