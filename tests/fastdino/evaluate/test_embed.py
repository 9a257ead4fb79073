from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdino import vit_tiny
from fastdino.config import EmbedConfig
from fastdino.data.sources import FolderSource
from fastdino.errors import UserError
from fastdino.evaluate import table
from fastdino.evaluate.embed import run
from fastdino.evaluate.features import extract_features


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.manual_seed(0)
    torch.save(vit_tiny(patch_size=16, img_size=32).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pictures(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures in two classes, one in none, and one that is no picture."""
    folder = tmp_path_factory.mktemp("embed") / "pictures"
    shutil.copytree(picture_folder, folder)
    shutil.copy(folder / "red" / "0.png", folder / "alone.png")
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def expected(weights: Path, pictures: Path) -> tuple[list[str], np.ndarray]:
    model = vit_tiny(patch_size=16, img_size=32)
    model.load_state_dict(torch.load(weights))
    source = FolderSource(pictures)
    features = extract_features(model, source, image_size=32, batch_size=5, num_workers=0)
    return [source.name(int(index)) for index in features.indices], features.features.numpy()


def embed(weights: Path, pictures: Path, output: Path) -> None:
    run(
        EmbedConfig(
            pretrained_weights=str(weights),
            data_path=str(pictures),
            output=str(output),
            batch_size_per_gpu=5,
            num_workers=0,
        )
    )


def test_parquet(
    weights: Path,
    pictures: Path,
    expected: tuple[list[str], np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="fastdino[parquet] is not installed")
    monkeypatch.setattr(table, "ROWS_IN_GROUP", 7)
    embed(weights, pictures, tmp_path / "new" / "f.parquet")
    file = parquet.ParquetFile(tmp_path / "new" / "f.parquet")
    rows = file.read().to_pydict()
    names, features = expected
    assert len(names) == 13
    assert rows["name"] == names
    assert rows["class"] == [name.split("/")[0] if "/" in name else None for name in names]
    assert np.array_equal(np.array(rows["features"], dtype=np.float32), features)
    # Batches of 5, 5 and 4, less the broken picture, in groups of at least 7.
    assert file.num_row_groups == 2
    skipped = (tmp_path / "new" / "f.parquet.skipped.txt").read_text()
    assert skipped.startswith("red/broken.png\t")
    assert len(skipped.splitlines()) == 1


def test_npy(weights: Path, pictures: Path, expected: tuple[list[str], np.ndarray], tmp_path: Path) -> None:
    embed(weights, pictures, tmp_path / "f.npy")
    names, features = expected
    assert np.array_equal(np.load(tmp_path / "f.npy"), features)
    assert (tmp_path / "f.npy.names.txt").read_text().splitlines() == names


def test_npz(weights: Path, pictures: Path, expected: tuple[list[str], np.ndarray], tmp_path: Path) -> None:
    embed(weights, pictures, tmp_path / "f.npz")
    names, features = expected
    with np.load(tmp_path / "f.npz") as file:
        assert np.array_equal(file["features"], features)
        assert file["names"].tolist() == names
        assert file["classes"].tolist() == [name.split("/")[0] if "/" in name else "" for name in names]


def test_nothing_readable_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the 1 pictures can be read"):
        embed(weights, tmp_path / "pictures", tmp_path / "f.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_an_unknown_ending(weights: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give a file ending in \.parquet, \.npy, \.npz"):
        embed(weights, pictures, tmp_path / "f.csv")
