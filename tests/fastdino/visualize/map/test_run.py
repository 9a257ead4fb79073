from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdino import cli
from fastdino.models.backbones import build_backbone
from fastdino.visualize.map import run as map_run

HOSTILE = "<script>alert('x')</script>&quot;\"'"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    torch.save(build_backbone("resnet_small").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pictures(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in two classes, one of them with a nasty name, one in none, and one that is no picture."""
    folder = tmp_path_factory.mktemp("map") / "pictures"
    shutil.copytree(picture_folder, folder)
    shutil.copy(folder / "red" / "0.png", folder / "alone.png")
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    # A file name has no slash; the class folder's and the file's name are joined by one.
    (folder / "blue").rename(folder / "<blue>&")
    shutil.move(folder / "red" / "0.png", folder / "red" / f"{HOSTILE.replace('/', '')}.png")
    return folder


def flags(weights: Path, pictures: Path, output: Path, *others: str) -> list[str]:
    paths = ["--pretrained_weights", str(weights), "--data_path", str(pictures), "--output", str(output)]
    return ["map", "--arch", "resnet_small", "--image_size", "32", "--num_workers", "0", *paths, *others]


@pytest.fixture(scope="module")
def page(weights: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    output = folder / "new" / "map.html"
    assert cli.main(flags(weights, pictures, output, "--tree", str(folder / "tree.json"), "--clusters", "2")) == 0
    return output


def data(page: Path, name: str) -> str:
    [content] = re.findall(rf'<script type="[\w/]+" id="{name}">([^<]*)</script>', page.read_text())
    return content


def integers(page: Path, name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data(page, name)), dtype="<i4")


def test_names_classes_and_neighbours_are_in_the_page(page: Path) -> None:
    about = json.loads(data(page, "about"))
    assert about["classes"] == ["<blue>&", "red"]
    assert len(about["names"]) == 13
    assert f"red/{HOSTILE.replace('/', '')}.png" in about["names"]
    labels = integers(page, "labels")
    assert [about["classes"][label] if label >= 0 else "" for label in labels] == [
        name.split("/")[0] if "/" in name else "" for name in about["names"]
    ]
    neighbours = integers(page, "neighbours").reshape(13, about["nearest"])
    for picture, near in enumerate(neighbours.tolist()):
        assert sorted([picture, *near]) == list(range(13))
    # The lone picture is a copy of the one with the nasty name: each is the other's nearest.
    alone = about["names"].index("alone.png")
    copy = about["names"].index(f"red/{HOSTILE.replace('/', '')}.png")
    assert neighbours[alone, 0] == copy
    assert neighbours[copy, 0] == alone


def test_the_page_names_what_it_runs_and_loads_nothing(page: Path) -> None:
    html = page.read_text()
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "alert('x')</script" not in html
    assert re.findall(r"https?://[^\s\"']+", html) == []


def test_the_tree_is_written_beside_it(page: Path) -> None:
    content = json.loads((page.parents[1] / "tree.json").read_text())
    assert [one["pictures"] for one in content["classes"]] == [6, 6]


def test_a_flat_folder_has_clusters_alone(weights: Path, picture_folder: Path, tmp_path: Path) -> None:
    assert cli.main(flags(weights, picture_folder / "red", tmp_path / "map.html")) == 0
    html = (tmp_path / "map.html").read_text()
    assert "by cluster" in html
    assert "by class" not in html
    assert 'class="tree"' not in html


def test_too_many_pictures_are_thinned(
    weights: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(map_run, "MOST_PICTURES", 5)
    assert cli.main(flags(weights, pictures, tmp_path / "map.html", "--clusters", "0")) == 0
    assert "5 of the 14 pictures" in capsys.readouterr().out
    assert "by cluster" not in (tmp_path / "map.html").read_text()


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (["--output", "map.png"], ".html"),
        (["--tree", "tree.txt"], ".nwk or .json"),
        (["--clusters", "-1"], "--clusters"),
        (["--data_path", "nowhere"], "nowhere"),
        (["--output", "/proc/none/map.html"], "--output"),
    ],
)
def test_mistakes_end_in_one_sentence(
    weights: Path, pictures: Path, capsys: pytest.CaptureFixture[str], others: list[str], sentence: str
) -> None:
    try:
        code = cli.main(flags(weights, pictures, Path("map.html"), *others))
    except SystemExit as exit:
        code = int(exit.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_tree_takes_classes(
    weights: Path, picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, tree = tmp_path / "map.html", tmp_path / "tree.nwk"
    assert cli.main(flags(weights, picture_folder / "red", output, "--tree", str(tree))) == 2
    assert "at least two class folders" in capsys.readouterr().err
    assert not output.exists()
