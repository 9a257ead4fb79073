from __future__ import annotations

from pathlib import Path

from PIL import Image

from fastdino.data.sources import FolderSource, Joined


def test_one_after_the_other(tmp_path: Path) -> None:
    for folder, count in (("first", 2), ("second", 3)):
        for kind in ("ant", "bee"):
            (tmp_path / folder / kind).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / folder / kind / f"{folder}{index}.png")
    parts = [FolderSource(tmp_path / name) for name in ("first", "second")]
    joined = Joined(parts)
    assert len(joined) == 4 + 6
    assert joined.classes == ["ant", "bee"]
    everything = [(part.name(i), part.label(i), part.read(i)) for part in parts for i in range(len(part))]
    assert [(joined.name(i), joined.label(i), joined.read(i)) for i in range(10)] == everything
