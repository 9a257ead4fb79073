from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import torch

from fastdino import native
from fastdino.data import MultiCropLoader
from fastdino.data.sources import FileTable, Source, Subset, TarSource, open_source, tar_index
from fastdino.errors import UserError
from tests.fastdino.prepare.pictures import encoded, photo

Members = dict[str, bytes]


def _shard(path: Path, members: Members, **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _contents(source: Source) -> list[tuple[str, bytes]]:
    return [(source.name(index), source.read(index)) for index in range(len(source))]


def _read_by_table(table: FileTable) -> list[bytes]:
    """What a reader without Python would read."""
    assert table.file is not None and table.offset is not None and table.size is not None
    found = []
    for file, offset, size in zip(table.file.tolist(), table.offset.tolist(), table.size.tolist(), strict=True):
        with open(table.file_name(file), "rb") as shard:
            shard.seek(offset)
            found.append(shard.read(size))
    return found


@pytest.fixture(autouse=True)
def readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shards that were read through since, with a cache of the test's own."""
    done: list[str] = []
    read_through = tar_index.read_through

    def counted(file: IO[bytes], size: int, said: str) -> tuple[tar_index.Index, bool]:
        done.append(said)
        return read_through(file, size, said)

    monkeypatch.setattr(tar_index, "read_through", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return done


def test_pictures_in_the_order_of_shards_and_members(tmp_path: Path) -> None:
    _shard(tmp_path / "set-10.tar", {"z.jpg": b"z"})
    _shard(tmp_path / "set-2.tar", {"b.JPG": b"b" * 700, "notes.txt": b"no", "a.png": b"", "list.json": b"{}"})
    source = TarSource(tmp_path)
    assert isinstance(source, Source)
    assert _contents(source) == [
        ("set-2.tar/b.JPG", b"b" * 700),
        ("set-2.tar/a.png", b""),
        ("set-10.tar/z.jpg", b"z"),
    ]
    assert _read_by_table(source.files()) == [content for _, content in _contents(source)]
    assert source.classes == [] and [source.label(index) for index in range(3)] == [-1] * 3


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_and_long_names(tmp_path: Path, format: int) -> None:
    # USTAR splits names at a slash, the others store any length in a member of their own.
    members = {f"{'folder' * 14}/{'name' * 20}.jpg": b"long", "ä.png": b"umlaut", "./dot.png": b"dot"}
    source = TarSource(_shard(tmp_path / "1.tar", members, format=format))
    assert [name.removeprefix("1.tar/") for name, _ in _contents(source)] == list(members)
    assert [content for _, content in _contents(source)] == list(members.values())


def test_what_is_no_file_is_no_picture(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "1.tar", "w") as archive:
        for kind, name in (
            (tarfile.DIRTYPE, "folder.jpg"),
            (tarfile.SYMTYPE, "link.jpg"),
            (tarfile.LNKTYPE, "hard.jpg"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "real.jpg"
            archive.addfile(info)
        info = tarfile.TarInfo("real.jpg")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"real"))
    assert _contents(TarSource(tmp_path / "1.tar")) == [("1.tar/real.jpg", b"real")]


def test_labels_are_the_numbers_beside_the_pictures(tmp_path: Path) -> None:
    _shard(tmp_path / "1.tar", {"a.cls": b"7", "a.jpg": b"", "b.x.jpg": b"", "b.cls": b" 20\n", "c.jpg": b""})
    _shard(tmp_path / "2.tar", {"top/d.cls": b"7", "top/d.png": b"", "e.cls": b"no number", "e.png": b""})
    source = TarSource(tmp_path)
    assert source.classes == ["7", "20"]
    assert {source.name(index): source.label(index) for index in range(len(source))} == {
        "1.tar/a.jpg": 0,
        "1.tar/b.x.jpg": 1,
        "1.tar/c.jpg": -1,
        "2.tar/top/d.png": 0,
        "2.tar/e.png": -1,
    }


def test_without_numbers_the_folders_are_the_classes(tmp_path: Path) -> None:
    _shard(tmp_path / "1.tar", {"./c10/a.jpg": b"", "c2/deep/b.jpg": b"", "top.jpg": b""})
    source = TarSource(tmp_path)
    assert source.classes == ["c2", "c10"]
    assert [source.label(index) for index in range(3)] == [1, 0, -1]


@pytest.mark.parametrize(
    "given",
    [
        lambda root: root,
        lambda root: root / "*.tar",
        lambda root: root / "s-{08..11}.tar",
        lambda root: root / "s-{08..11}.t*",
        lambda root: [root / "s-08.tar", root / "s-09.tar", str(root / "s-{10..11}.tar")],
    ],
)
def test_ways_to_name_shards(tmp_path: Path, given: Callable[[Path], str]) -> None:
    for number in ("08", "09", "10", "11"):
        _shard(tmp_path / f"s-{number}.tar", {"a.jpg": number.encode()})
    (tmp_path / "list.json").write_text("{}")
    source = TarSource(given(tmp_path))
    assert [content for _, content in _contents(source)] == [b"08", b"09", b"10", b"11"]


def test_a_path_is_taken_for_shards_when_it_holds_nothing_else(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "set" / "1.tar", {"a.jpg": b"a"})
    for written_beside in ("manifest.json", "skipped.txt"):
        (shard.parent / written_beside).write_text("")
    for path in (shard, str(shard), shard.parent, str(tmp_path / "set" / "{1..1}.tar"), tmp_path / "set" / "*.tar"):
        assert isinstance(open_source(path), TarSource)
    (shard.parent / "a.jpg").write_bytes(b"a")
    assert not isinstance(open_source(shard.parent), TarSource)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda root: root / "gone.tar", r"There is no tar file .*gone\.tar: give"),
        (lambda root: root / "{1..3}.tar", r"There is no tar file .*1\.tar: give"),
        (lambda root: root, "There is no tar file"),
        (lambda root: [], "No pictures in"),
        (lambda root: _shard(root / "1.tar", {"a.txt": b""}), r"No pictures in .*1\.tar: looked for \.jpg"),
        (lambda root: _shard(root / "1.tar", {}), "No pictures in"),
    ],
)
def test_without_a_picture_there_is_one_sentence(tmp_path: Path, given: Callable[[Path], str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        TarSource(given(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_compressed_shards_are_refused(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "1.tar", mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(UserError, match=r"is no tar file, or a compressed one: give plain \.tar files"):
        TarSource(tmp_path / "1.tar")


def test_of_a_cut_shard_the_whole_pictures_are_used(
    tmp_path: Path, readings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = _shard(tmp_path / "1.tar", {f"{number}.jpg": bytes([number]) * 2000 for number in range(4)})
    whole = path.read_bytes()
    # A member is a header of 512 bytes and its content in whole blocks of 512.
    member = 512 + 2048
    for length in (member * 2 + 100, member * 2 + 512, member * 2 + 512 + 1999):
        path.write_bytes(whole[:length])
        caplog.clear()
        assert [content[0] for _, content in _contents(TarSource(path))] == [0, 1]
        assert "1.tar is damaged after 2 pictures" in caplog.text
    # Nothing of it is kept: the next run says so again.
    caplog.clear()
    TarSource(path)
    assert len(readings) == 4 and "damaged" in caplog.text


def test_what_comes_after_a_broken_header_is_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _shard(tmp_path / "1.tar", {f"{number}.jpg": bytes([number]) * 2000 for number in range(4)})
    content = bytearray(path.read_bytes())
    content[2560:2570] = b"\xff" * 10
    path.write_bytes(content)
    assert len(TarSource(path)) == 1
    assert "1.tar is damaged after 1 pictures (bad header)" in caplog.text


@pytest.mark.parametrize("zeros", [0, 100, 512, 512 * 20])
def test_any_number_of_zeros_may_end_a_shard(tmp_path: Path, zeros: int, caplog: pytest.LogCaptureFixture) -> None:
    path = _shard(tmp_path / "1.tar", {f"{number}.jpg": b"1" * 512 for number in range(4)})
    path.write_bytes(path.read_bytes()[: 4 * 1024] + bytes(zeros))
    assert len(TarSource(path)) == 4
    assert not caplog.text


def test_a_shard_that_is_cut_off_while_in_use(tmp_path: Path) -> None:
    path = _shard(tmp_path / "1.tar", {f"{number}.jpg": encoded(photo()) for number in range(4)})
    source = TarSource(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(OSError, match="the shard ends before the picture does"):
        source.read(3)
    implementations = ["reference"] + ["native"] * native.available()
    for implementation in implementations:
        loader = MultiCropLoader(
            source, 4, num_threads=0, global_size=8, local_crops_number=0, implementation=implementation
        )
        assert len(list(loader)) == 1
        loader.close()
        assert loader.skipped["1.tar/3.jpg"] == "the shard ends before the picture does"


def test_a_list_is_kept_while_size_and_time_are_the_same(tmp_path: Path, readings: list[str]) -> None:
    paths = [_shard(tmp_path / f"{number}.tar", {"a/1.jpg": b"1", "a/2.jpg": b"22"}) for number in range(2)]
    first, second = TarSource(tmp_path), TarSource(tmp_path)
    assert len(readings) == 2
    assert _contents(first) == _contents(second)
    assert first.classes == second.classes and second.label(3) == 0
    _shard(paths[0], {"a/1.jpg": b"1", "b/3.jpg": b"33"})
    os.utime(paths[0], (1e9, 1e9))
    assert _contents(TarSource(tmp_path))[1] == ("0.tar/b/3.jpg", b"33")
    assert readings[2:] == [str(paths[0])]


@pytest.mark.parametrize("damage", [b"", b"text", b"PK\3\4"])
def test_a_damaged_list_is_made_anew(tmp_path: Path, readings: list[str], damage: bytes) -> None:
    path = _shard(tmp_path / "1.tar", {"a.jpg": b"a"})
    expected = _contents(TarSource(path))
    (kept,) = (tmp_path / "cache" / "fastdino").iterdir()
    kept.write_bytes(damage)
    assert _contents(TarSource(path)) == _contents(TarSource(path)) == expected
    assert len(readings) == 2


def test_survives_pickling_and_checks_the_index(tmp_path: Path) -> None:
    source = pickle.loads(pickle.dumps(TarSource(_shard(tmp_path / "1.tar", {"a.jpg": b"a"}))))
    assert _contents(source) == [("1.tar/a.jpg", b"a")]
    for index in (-1, 1):
        for method in (source.read, source.name):
            with pytest.raises(IndexError):
                method(index)


def test_a_subset_reads_the_same_with_and_without_python(tmp_path: Path) -> None:
    _shard(tmp_path / "1.tar", {"a.jpg": b"a", "b.jpg": b"bb"})
    _shard(tmp_path / "2.tar", {"c.jpg": b"ccc"})
    subset = Subset(TarSource(tmp_path), [2, 0])
    table = subset.files()
    assert table is not None
    assert _read_by_table(table) == [content for _, content in _contents(subset)] == [b"ccc", b"a"]


@pytest.mark.skipif(not native.available(), reason=native.why_not() or "never")
def test_batches_of_shards_are_those_of_the_same_folder(tmp_path: Path) -> None:
    members = {f"{label}/{number}.jpg": encoded(photo(40 + number, 50)) for label in "ab" for number in range(5)}
    for name, content in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    names = list(members)
    _shard(tmp_path / "shards" / "1.tar", {name: members[name] for name in names[:3]})
    _shard(tmp_path / "shards" / "2.tar", {name: members[name] for name in names[3:]})
    batches = []
    for path in ("folder", "shards"):
        loader = MultiCropLoader(
            tmp_path / path, 5, num_threads=2, global_size=16, local_size=8, implementation="native", output="uint8"
        )
        assert loader.classes == ["a", "b"]
        batches.append([*loader, *loader])
        loader.close()
    for (our_crops, our_labels), (their_crops, their_labels) in zip(*batches, strict=True):
        assert torch.equal(our_labels, their_labels)
        assert all(map(torch.equal, our_crops, their_crops))
