from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from fastdino.demo.movie import RATE, pan, write_pan
from fastdino.video import open_video


def test_the_camera_goes_from_one_end_to_the_other() -> None:
    photograph = Image.fromarray(np.arange(60 * 90 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 90, 3))
    frames = list(pan(photograph, 9, (40, 30)))
    assert len(frames) == 9
    assert frames[0].tobytes() == photograph.crop((0, 0, 40, 30)).tobytes()
    assert frames[4].tobytes() == photograph.crop((25, 15, 65, 45)).tobytes()
    assert frames[-1].tobytes() == photograph.crop((50, 30, 90, 60)).tobytes()


def test_a_movie_of_it(tmp_path: Path) -> None:
    with open_video(write_pan(tmp_path / "pan.mp4", Image.new("RGB", (50, 40)), 0.2, (40, 30))) as video:
        assert (video.rate, video.count) == (Fraction(RATE), 5)
        assert next(iter(video)).size == (40, 30)
