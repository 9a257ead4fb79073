from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastdino.config import AttentionConfig
from fastdino.errors import UserError
from fastdino.visualize.attention.pictures import SHEET_SIDE
from fastdino.visualize.attention.run import run
from tests.fastdino.visualize.small import photograph


def settings(tmp_path: Path, **others: Any) -> AttentionConfig:
    output_dir = others.pop("output_dir", str(tmp_path / "maps"))
    return AttentionConfig(output_dir=output_dir, **({"arch": "vit_tiny", "image_size": (64, 48)} | others))


def test_one_picture_into_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph().save(tmp_path / "photo.png")
    paths = run(settings(tmp_path, image_path=str(tmp_path / "photo.png")))
    heads = [f"attn-head{head}.png" for head in range(3)] + [f"mask_th0.6_head{head}.png" for head in range(3)]
    expected = {"img.png", "attn-mean.png", "overlay-mean.png", "attention.png", *heads}
    assert {path.relative_to(tmp_path / "maps").as_posix() for path in paths} == expected
    assert Image.open(tmp_path / "maps" / "attn-head2.png").size == (48, 64)
    assert "attention.png" in capsys.readouterr().out


def test_a_folder_gives_a_subfolder_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "album" / "inner").mkdir(parents=True)
    for name in ("cat.png", "cat.bmp", "inner/dog.png"):
        photograph().save(tmp_path / "album" / name)
    (tmp_path / "album" / "broken.jpg").write_text("no picture")
    paths = run(settings(tmp_path, image_path=str(tmp_path / "album")))
    folders = {path.parent.relative_to(tmp_path / "maps").as_posix() for path in paths}
    assert folders == {"cat.png", "cat.bmp", "inner/dog", "."}
    # Three pictures above their maps.
    overview = Image.open(tmp_path / "maps" / "attention.png")
    assert overview.width > 3 * SHEET_SIDE and overview.height > 2 * SHEET_SIDE
    output = capsys.readouterr().out
    assert "broken.jpg" in output and "maps/attention.png first" in output


@pytest.mark.parametrize(
    ("name", "others", "message"),
    [
        ("text.png", {}, "none of the 1 pictures"),
        ("missing.png", {}, "no picture or folder"),
        ("missing.mp4", {}, "no movie or folder"),
        ("photo.png", {"out": "photo.gif"}, "written"),
        ("text.png", {"out": "photo.mp4"}, "cannot be read as a video"),
        ("photo.png", {"masks": "nowhere"}, "nowhere"),
        ("photo.png", {"arch": "resnet18"}, "vit_small"),
        ("photo.png", {"image_size": (8, 8)}, "--image_size"),
        ("photo.png", {"threshold": 1.5}, "--threshold"),
        ("photo.png", {"output_dir": "photo.png"}, "--output_dir"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, others: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    photograph().save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=message) as caught:
        run(settings(tmp_path, image_path=name, **others))
    assert "\n" not in str(caught.value)


def test_no_picture_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a picture"):
        run(settings(tmp_path))


def test_several_pictures_and_folders_together(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    for name in ("cat.png", "album/cat.png"):
        photograph().save(tmp_path / name)
    paths = run(settings(tmp_path, inputs=(str(tmp_path / "cat.png"), str(tmp_path / "album"))))
    folders = {path.parent.relative_to(tmp_path / "maps").as_posix() for path in paths}
    assert folders == {"cat", "album/cat", "."}


def test_two_pictures_of_one_name_are_one_sentence(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        photograph().save(tmp_path / folder / "cat.png")
    with pytest.raises(UserError, match=r"2 pictures called cat\.png"):
        run(settings(tmp_path, inputs=tuple(str(tmp_path / folder / "cat.png") for folder in ("one", "two"))))


def test_masks_are_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "unmasked", "empty"):
        (tmp_path / "photos" / "inner").mkdir(parents=True, exist_ok=True)
        photograph(seed=ord(name[0])).save(tmp_path / "photos" / "inner" / f"{name}.jpg")
    truth = np.zeros((40, 50), dtype=np.uint8)
    (tmp_path / "masks" / "inner").mkdir(parents=True)
    Image.fromarray(truth).save(tmp_path / "masks" / "inner" / "empty.png")
    truth[10:30, 10:40] = 255
    for name in ("a", "b"):
        Image.fromarray(truth).save(tmp_path / "masks" / "inner" / f"{name}.png")
    [path] = run(settings(tmp_path, image_path=str(tmp_path / "photos"), masks=str(tmp_path / "masks")))
    numbers = json.loads(path.read_text())
    assert numbers["pictures"] == 2 and len(numbers["head"]) == 3
    assert set(numbers["per_picture"]) == {"inner/a.jpg", "inner/b.jpg"}
    best = np.mean([max(scores) for scores in numbers["per_picture"].values()])
    assert numbers["best_head"] == pytest.approx(best)
    output = capsys.readouterr().out
    assert f"best head of each picture  {best:5.1f}" in output
    assert "1 pictures without a mask" in output and "no foreground" in output


def test_masks_without_pictures_are_one_sentence(tmp_path: Path) -> None:
    for folder, name in (("photos", "a.png"), ("masks", "b.png")):
        (tmp_path / folder).mkdir()
        photograph().save(tmp_path / folder / name)
    with pytest.raises(UserError, match="no mask in"):
        run(settings(tmp_path, inputs=(str(tmp_path / "photos"),), masks=str(tmp_path / "masks")))
    with pytest.raises(UserError, match="one mask"):
        photograph().save(tmp_path / "photos" / "c.png")
        run(settings(tmp_path, inputs=(str(tmp_path / "photos"),), masks=str(tmp_path / "masks" / "b.png")))
