"""What `fastdino pack` writes, read back as training reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdino import cli
from fastdino.config import PackConfig
from fastdino.data import sources
from fastdino.data.reading import read_image
from fastdino.data.sources import FolderSource, open_source
from fastdino.prepare import pack
from tests.fastdino.prepare.pictures import encoded, photo, write_good

pytestmark = pytest.mark.skipif(not hasattr(sources, "TarSource"), reason="no source reads tar shards")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_good(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "my.cat.jpg").write_bytes(encoded(photo(77, 88)))
    pack.run(PackConfig(data_path=str(tmp_path / "photos"), output_dir=str(tmp_path / "shards")))
    return tmp_path / "shards"


def test_training_sees_the_same_pictures_and_classes(tmp_path: Path, shards: Path) -> None:
    before, after = FolderSource(tmp_path / "photos"), open_source(str(shards))
    assert after.classes == before.classes
    assert len(after) == len(before) == 7
    for index in range(len(before)):
        assert after.label(index) == before.label(index)
        assert read_image(after.read(index)).tobytes() == read_image(before.read(index)).tobytes()


def test_shards_can_be_checked(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(shards), "--global_size", "32", "--local_crops_number", "0"]) == 0
    assert "7 pictures in 2 classes" in capsys.readouterr().out


def test_packing_shards_again_gives_the_same_members(tmp_path: Path, shards: Path) -> None:
    pack.run(PackConfig(data_path=str(shards), output_dir=str(tmp_path / "again")))
    assert [path.read_bytes() for path in (tmp_path / "again").glob("*.tar")] == [
        path.read_bytes() for path in shards.glob("*.tar")
    ]
