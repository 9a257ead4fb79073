"""The source that docs/data.md shows, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastdino import native
from fastdino.data import MultiCropLoader, Source, open_source
from fastdino.data.order import EpochOrder
from tests.fastdino.prepare.pictures import encoded, photo

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def _thumbnails() -> Any:
    (code,) = re.findall(r"```python\n(class Thumbnails.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["Thumbnails"]


@pytest.mark.parametrize(
    "implementation",
    [
        "reference",
        pytest.param("native", marks=pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")),
    ],
)
def test_the_users_own_source(implementation: Any) -> None:
    rows: list[Any] = [(f"row {number}", encoded(photo(20 + number, 30)), number % 2) for number in range(66)]
    rows[5] = ("row 5", b"damaged", 1)
    source = _thumbnails()(rows)
    assert isinstance(source, Source) and open_source(source) is source
    # The page's own call, with small crops.
    assert "`MultiCropLoader(Thumbnails(rows), batch_size=64)`" in PAGE
    loader = MultiCropLoader(
        source, batch_size=64, num_threads=0, global_size=16, local_size=8, implementation=implementation
    )
    ((crops, labels),) = list(loader)
    loader.close()
    assert [len(crop) for crop in crops] == [64] * 10
    order = EpochOrder(0, 0, 66)[np.arange(64)]
    used = np.where(order == 5, 6, order)
    assert labels.tolist() == [rows[index][2] for index in used]
    assert loader.classes == ["cat", "dog"]
    assert loader.skipped == {"row 5": "not a picture in a format that Pillow reads"}


def test_a_picture_that_cannot_be_had_is_skipped_as_the_page_says() -> None:
    class Offline(_thumbnails()):  # type: ignore[misc]
        def read(self, index: int) -> bytes:
            if index == 1:
                raise OSError("offline")
            picture: bytes = super().read(index)
            return picture

    rows = [(f"row {number}", encoded(photo(20, 30)), 0) for number in range(4)]
    loader = MultiCropLoader(Offline(rows), 4, num_threads=0, global_size=16, local_crops_number=0)
    assert len(list(loader)) == 1
    loader.close()
    assert loader.skipped == {"row 1": "offline"}
