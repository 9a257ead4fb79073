from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdino.demo import pictures
from fastdino.demo.pictures import PHOTOGRAPHS, SIDE, SPLITS, Split, read_photograph, windows, write_pictures
from fastdino.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_pictures(root, seed=0)
    return root


def test_folders_are_classes_of_equal_size(written: Path) -> None:
    for split in SPLITS:
        folders = sorted(os.listdir(written / split.folder))
        assert folders == sorted(Path(name).stem for name in PHOTOGRAPHS)
        for folder in folders:
            assert len(os.listdir(written / split.folder / folder)) == split.windows
    with Image.open(written / "train" / "coffee" / "000.jpg") as picture:
        assert (picture.size, picture.mode) == ((SIDE, SIDE), "RGB")


def test_the_seed_decides_every_byte(written: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "same", seed=0)
    write_pictures(tmp_path / "other", seed=1)
    name = Path("val") / "moon" / "007.jpg"
    assert (tmp_path / "same" / name).read_bytes() == (written / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (written / name).read_bytes()


def test_an_interrupted_set_is_made_again_and_a_whole_one_kept(written: Path) -> None:
    picture = written / "train" / "brick" / "000.jpg"
    before = picture.stat().st_mtime_ns
    write_pictures(written, seed=0)
    assert picture.stat().st_mtime_ns == before
    (written / "pictures.json").unlink()
    picture.unlink()
    write_pictures(written, seed=0)
    assert picture.exists()
    assert json.loads((written / "pictures.json").read_text())["seed"] == 0


def test_halves_share_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column of the picture has its own grey value, which the windows then still show."""
    monkeypatch.setattr(pictures, "relight", lambda window, generator: window)
    columns = np.repeat(np.arange(250, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    generator = np.random.default_rng(0)
    left, right = (
        np.stack([np.asarray(window) for window in windows(Image.fromarray(columns), split, generator)])
        for split in (Split("train", 50, 0.0, 0.5), Split("val", 50, 0.5, 1.0))
    )
    # Bicubic resampling reads nothing outside its box, but may overshoot a straight ramp by a rounding step.
    assert left.max() <= 125
    assert right.min() >= 124


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_come_with_the_package(name: str) -> None:
    photograph = read_photograph(name)
    assert photograph.mode == "RGB"
    assert min(photograph.size) >= 150


def test_a_missing_photograph_is_named() -> None:
    with pytest.raises(UserError, match=r"tiger\.png is missing: run pip install"):
        read_photograph("tiger.png")
