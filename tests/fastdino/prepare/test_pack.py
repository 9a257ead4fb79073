from __future__ import annotations

import errno
import json
import os
import re
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastdino import cli, native
from fastdino.config import PackConfig
from fastdino.data.reading import read_image
from fastdino.prepare import pack
from tests.fastdino.prepare.pictures import encoded, photo, write_bad, write_good

needs_native = pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write_good(root)
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures for three shards of a megabyte."""
    root = tmp_path_factory.mktemp("many")
    noise = np.random.default_rng(0).integers(0, 256, (30, 170, 170, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        (root / f"{index}.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    (root / "31.png").write_bytes(b"")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Every member of every shard, in order."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def packed(data_path: Path, output_dir: Path, **settings: Any) -> dict[str, bytes]:
    pack.run(PackConfig(data_path=str(data_path), output_dir=str(output_dir), **settings))
    return contents(output_dir)


def test_every_pixel_arrives_under_its_class(photos: Path, tmp_path: Path) -> None:
    members = packed(photos, tmp_path / "out")
    names = ["cat/1.jpg", "cat/2.png", "cat/10.jpg", "dog/1.jpg", "dog/2.jpg", "dog/3.webp"]
    assert list(members) == names
    for name, data in members.items():
        np.testing.assert_array_equal(np.asarray(read_image(data)), np.asarray(read_image(photos / name)))


@needs_native
def test_only_progressive_files_change(photos: Path, tmp_path: Path) -> None:
    members = packed(photos, tmp_path / "out")
    changed = {name for name, data in members.items() if data != (photos / name).read_bytes()}
    assert changed == {"cat/1.jpg", "cat/10.jpg", "dog/2.jpg"}
    assert not any(native.jpeg_header(members[name]).progressive for name in changed)


def test_originals_stay_untouched(photos: Path, tmp_path: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*.*")}
    packed(photos, tmp_path / "out", short_side=32)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos.rglob("*.*")} == before


def test_unreadable_pictures_are_left_out_and_listed(photos: Path, tmp_path: Path) -> None:
    bad = write_bad(photos)
    members = packed(photos, tmp_path / "out")
    assert len(members) == 6
    lines = dict(line.split("\t") for line in (tmp_path / "out" / "skipped.txt").read_text().splitlines())
    assert lines.keys() == bad.keys()
    for name, reason in bad.items():
        assert reason in lines[name]


def test_shrinks_and_never_enlarges(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = packed(photos, tmp_path / "out", short_side=115)
    sizes = {name: Image.open(BytesIO(data)).size for name, data in members.items()}
    assert sizes == {
        "cat/1.jpg": (144, 115),
        "cat/2.png": (200, 100),
        "cat/10.jpg": (124, 115),
        "dog/1.jpg": (160, 110),
        "dog/2.jpg": (115, 172),
        "dog/3.jpg": (115, 115),
    }
    assert members["cat/2.png"] == (photos / "cat" / "2.png").read_bytes()
    shrunk = read_image(photos / "cat" / "1.jpg").resize((144, 115), Image.Resampling.BICUBIC)
    assert read_image(members["cat/1.jpg"]).tobytes() == read_image(encoded(shrunk, quality=90)).tobytes()
    assert "--short_side 115 changes the recipe" in capsys.readouterr().out


def test_the_same_bytes_whatever_the_threads(many: Path, tmp_path: Path) -> None:
    for name, threads in (("one", 1), ("three", 3)):
        packed(many, tmp_path / name, shard_mb=1, num_workers=threads)
    assert files(tmp_path / "one") == files(tmp_path / "three")
    sizes = [path.stat().st_size for path in (tmp_path / "one").glob("*.tar")]
    assert len(sizes) == 3
    assert max(sizes) <= 1_000_000


def test_members_tell_nothing_of_owner_and_time(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


@pytest.mark.parametrize("stop_after", [0, 5, 12, 29])
def test_goes_on_where_it_was_stopped(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    packed(many, tmp_path / "whole", shard_mb=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tarfile.TarFile, "addfile", failing(KeyboardInterrupt(), stop_after))
        packed(many, tmp_path / "out", shard_mb=1)
    finished = {path: path.stat().st_ino for path in (tmp_path / "out").glob("*.tar")}
    (tmp_path / "out" / ".shard-000001.tar.abc.tmp").write_bytes(b"of a killed run")
    packed(many, tmp_path / "out", shard_mb=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert {path: path.stat().st_ino for path in finished} == finished  # not written anew
    assert "31.png" in (tmp_path / "out" / "skipped.txt").read_text()


def test_a_finished_pack_is_left_alone(photos: Path, tmp_path: Path) -> None:
    packed(photos, tmp_path / "out")
    before = (tmp_path / "out" / "shard-000000.tar").stat().st_ino
    packed(photos, tmp_path / "out")
    assert (tmp_path / "out" / "shard-000000.tar").stat().st_ino == before


def test_a_full_disk_ends_in_one_sentence(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(tarfile.TarFile, "addfile", failing(full, 14))
    assert cli.main(["pack", "--data_path", str(many), "--output_dir", str(tmp_path / "out"), "--shard_mb", "1"]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert sorted(files(tmp_path / "out")) == ["pack.json", "shard-000000.tar"]


def failing(error: BaseException, after: int) -> Any:
    """An `addfile` that works so many times."""
    original, calls = tarfile.TarFile.addfile, iter(range(after))

    def addfile(*arguments: Any) -> None:
        if next(calls, None) is None:
            raise error
        original(*arguments)

    return addfile


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--short_side", "64"], "--short_side was None and is 64"),
        (["--shard_mb", "7"], "--shard_mb was 512 and is 7"),
    ],
)
def test_shards_of_other_settings_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    packed(photos, tmp_path / "out")
    assert sentence in refusal(capsys, photos, tmp_path / "out", *flags)


def test_shards_of_other_pictures_are_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed(photos, tmp_path / "out")
    (photos / "dog" / "1.jpg").rename(photos / "dog" / "one.jpg")
    assert "other names" in refusal(capsys, photos, tmp_path / "out")


@pytest.mark.parametrize("damage", ["{", "[]", '{"settings": {}}', '{"settings": {"pictures": 1}, "shards": 3}'])
def test_a_damaged_manifest_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    packed(photos, tmp_path / "out")
    (tmp_path / "out" / "pack.json").write_text(damage)
    assert "pack.json is damaged" in refusal(capsys, photos, tmp_path / "out")


def test_missing_changed_and_foreign_shards_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(photos, tmp_path / "out")
    shard = tmp_path / "out" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "was changed" in refusal(capsys, photos, tmp_path / "out")
    shard.unlink()
    assert "is missing" in refusal(capsys, photos, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "backup.tar").write_bytes(b"")
    assert "did not write" in refusal(capsys, photos, tmp_path / "other")


def test_bad_settings_are_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--output_dir is --data_path" in refusal(capsys, photos, photos)
    assert "--short_side is 0" in refusal(capsys, photos, tmp_path / "out", "--short_side", "0")
    assert "--shard_mb is -1" in refusal(capsys, photos, tmp_path / "out", "--shard_mb", "-1")
    assert "give --output_dir" in refusal(capsys, photos, "")
    assert not (tmp_path / "out").exists()


def refusal(capsys: pytest.CaptureFixture[str], data_path: Path, output_dir: Path | str, *flags: str) -> str:
    capsys.readouterr()
    assert cli.main(["pack", "--data_path", str(data_path), "--output_dir", str(output_dir), *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_nothing_readable_leaves_no_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    assert "none of the 1 pictures can be read" in refusal(capsys, tmp_path / "photos", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))
    (tmp_path / "photos" / "b.jpg").write_bytes(encoded(photo()))
    assert list(packed(tmp_path / "photos", tmp_path / "out")) == ["b.jpg"]


def test_without_the_extension_progressive_files_stay(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "_import_error", ImportError("no such file"))
    members = packed(photos, tmp_path / "out")
    assert all(data == (photos / name).read_bytes() for name, data in members.items())
    assert "progressive JPEGs stay as they are: native extension" in capsys.readouterr().out


def test_webdataset_makes_a_sample_of_each_picture(tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "a.b"
    photos.mkdir(parents=True)
    names = ["1.jpg", "1.PNG", "my.holiday.jpg", "my_holiday.jpg", "ümlaut.jpg", f"{'long' * 50}.jpg"]
    for number, name in enumerate(names):
        form = "PNG" if name.endswith("PNG") else "JPEG"
        (photos / name).write_bytes(encoded(photo(50 + number, 40), form))
    keys = dict(samples(packed(tmp_path / "photos", tmp_path / "out")))
    assert len(keys) == len(names)
    assert all(key.startswith("a.b/") and len(endings) == 1 for key, endings in keys.items())


def samples(members: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """WebDataset's rule: what shares a name up to the first dot of its last part is one sample."""
    grouped: dict[str, list[str]] = {}
    for name in members:
        match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", name)
        assert match is not None
        grouped.setdefault(match[1], []).append(match[2])
    yield from grouped.items()


def test_the_manifest_adds_up(photos: Path, tmp_path: Path) -> None:
    write_bad(photos)
    packed(photos, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "pack.json").read_text())
    (shard,) = manifest["shards"]
    assert (shard["end"], shard["pictures"], len(shard["skipped"])) == (9, 6, 3)
    assert shard["transcoded"] == (3 if native.available() else 0)
    assert shard["size"] == (tmp_path / "out" / shard["name"]).stat().st_size
