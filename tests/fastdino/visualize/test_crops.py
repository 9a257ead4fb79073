from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fastdino import cli
from fastdino.data.apply import apply_plan
from fastdino.data.plan import CropPlan, crop_plan
from fastdino.visualize.crops import captions, draw_crops

FRAME, GAP = 5, 24
BLUE, ORANGE = (20, 105, 190), (215, 95, 15)


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


PLAIN = CropPlan(
    top=3,
    left=4,
    height=50,
    width=60,
    size=96,
    flip=False,
    jitter=(),
    grayscale=False,
    blur_radius=0.0,
    solarize=False,
)


def test_captions_tell_everything_in_its_order() -> None:
    assert captions(PLAIN) == ["60 x 50", "at 4, 3", "to 96 x 96"]
    jitter = (("hue", -0.05), ("brightness", 1.234), ("saturation", 0.9), ("contrast", 1.0))
    assert captions(replace(PLAIN, flip=True, jitter=jitter, grayscale=True, blur_radius=1.5, solarize=True))[3:] == [
        "flipped",
        "hue -18°",
        "brightness x 1.23",
        "saturation x 0.90",
        "contrast x 1.00",
        "grey",
        "blur 1.50 px",
        "solarised",
    ]


def test_the_crops_on_the_sheet_are_those_of_training(cat: Path, tmp_path: Path) -> None:
    output = tmp_path / "sheet.png"
    assert cli.main(["crops", str(cat), "--output", str(output), "--seed", "3", "--epoch", "2"]) == 0
    sheet = Image.open(output).convert("RGB")
    plan = crop_plan(3, 2, 0, 451, 300)
    crop = Image.fromarray(apply_plan(cat.read_bytes(), plan)[1].permute(1, 2, 0).numpy())
    right, top = sheet.width - GAP - FRAME, GAP + FRAME
    shown = sheet.crop((right - 320, top, right, top + 320))
    assert shown.tobytes() == crop.resize((320, 320), Image.Resampling.BICUBIC).tobytes()
    assert sheet.getpixel((right + 2, top)) == ORANGE


def test_boxes_stand_where_the_plan_says() -> None:
    picture = Image.new("RGB", (350, 200), "black")
    plan = [
        replace(PLAIN, top=50, left=100, height=100, width=150),
        replace(PLAIN, top=0, left=0, height=200, width=350),
    ]
    sheet = np.asarray(draw_crops(picture, [picture, picture], plan, "title"))
    overview = sheet[GAP : GAP + 440, GAP : GAP + 772]  # enlarged to the width that two global crops leave
    scale = 772 / 350
    rows, columns = np.nonzero((overview == BLUE).all(axis=-1))
    first_and_last_row_and_column = np.array([50, 50 + 100, 100, 100 + 150]) * scale - [0, 1, 0, 1]
    found = np.array([rows.min(), rows.max(), columns.min(), columns.max()])
    assert np.abs(found - first_and_last_row_and_column).max() <= 2  # a white pixel outside, and rounding


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (300, 3000)])
@pytest.mark.parametrize("locals", [0, 1, 12])
def test_any_picture_and_any_number_of_crops(size: tuple[int, int], locals: int, tmp_path: Path) -> None:
    Image.new("L", size, 128).save(tmp_path / "odd.png")
    flags = ["--output", str(tmp_path / "sheet.png"), "--local_crops_number", str(locals)]
    assert cli.main(["crops", str(tmp_path / "odd.png"), *flags]) == 0
    assert Image.open(tmp_path / "sheet.png").width == 1528


def test_an_epoch_and_a_seed_have_their_own_crops(cat: Path, tmp_path: Path) -> None:
    sheets = set()
    for number, flags in enumerate([[], [], ["--epoch", "1"], ["--seed", "1"], ["--color_jitter", "0", "0", "0", "0"]]):
        assert cli.main(["crops", str(cat), "--output", str(tmp_path / f"{number}.png"), *flags]) == 0
        sheets.add((tmp_path / f"{number}.png").read_bytes())
    assert len(sheets) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{0}/none.jpg"], "No such file or directory"),
        (["{0}"], "Is a directory"),
        (["{0}/text.jpg"], "not a picture that training would use"),
        (["{0}/cat.png", "--output", "{0}/none/sheet.png"], "give another --output"),
        (["{0}/cat.png", "--local_size", "0"], "local_size is 0"),
    ],
)
def test_mistakes_end_in_one_sentence(
    cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    assert cli.main(["crops", *(argument.format(tmp_path) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
