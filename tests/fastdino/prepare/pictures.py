"""A small data set with one of everything that can be wrong with pictures."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data


def photo(width: int = 150, height: int = 120) -> Image.Image:
    """A photograph; others of another size are its parts."""
    return Image.fromarray(data.coffee()[:height, :width])


def encoded(image: Image.Image, format: str = "JPEG", **settings: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format, **settings)
    return stream.getvalue()


def write_good(root: Path) -> None:
    """Two classes; six usable pictures in all, among them a progressive, a grey and a CMYK one."""
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    (root / "cat" / "1.jpg").write_bytes(encoded(photo(), progressive=True))
    (root / "cat" / "2.png").write_bytes(encoded(photo(200, 100), "PNG"))
    (root / "cat" / "10.jpg").write_bytes(encoded(photo(140, 130).convert("CMYK"), progressive=True))
    (root / "dog" / "1.jpg").write_bytes(encoded(photo(160, 110)))
    (root / "dog" / "2.jpg").write_bytes(encoded(photo(120, 180).convert("L"), progressive=True))
    (root / "dog" / "3.webp").write_bytes(encoded(photo(130, 130), "WEBP"))


def write_bad(root: Path) -> dict[str, str]:
    """Pictures that training would skip, each with a part of the reason."""
    whole = encoded(photo())
    (root / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "text.png").write_bytes(b"no picture")
    return {"cat/cut.jpg": "truncated", "cat/empty.jpg": "empty", "dog/text.png": "not a picture"}


def write_odd(root: Path) -> None:
    """Pictures that are used, with something worth a note."""
    (root / "cat" / "copy.jpg").write_bytes((root / "cat" / "1.jpg").read_bytes())
    (root / "dog" / "copy.jpg").write_bytes((root / "cat" / "1.jpg").read_bytes())
    (root / "dog" / "jpeg.png").write_bytes(encoded(photo(101, 102)))
    (root / "dog" / "small.png").write_bytes(encoded(photo(40, 130), "PNG"))
    (root / "dog" / "dot.png").write_bytes(encoded(photo(1, 1), "PNG"))
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "dog" / "turned.jpg").write_bytes(encoded(photo(105, 104), exif=exif))
    (root / "dog" / "turned.webp").write_bytes(encoded(photo(105, 103), "WEBP", exif=exif))
    (root / "dog" / "turned.tif").write_bytes(encoded(photo(105, 102), "TIFF", exif=exif))
    frames = [photo(110, 110), photo(110, 110).rotate(90)]
    (root / "dog" / "moving.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    deep = np.asarray(photo().convert("L")).astype(np.uint16) * 16
    (root / "dog" / "deep.png").write_bytes(encoded(Image.fromarray(deep), "PNG"))
