"""Whether training would use a picture: the one judgement that the commands share with the loader."""

from __future__ import annotations

from PIL import Image

from fastdino import native
from fastdino.data import engine
from fastdino.data.reading import UnreadableImage, read_image


def seen_in_training(data: bytes) -> Image.Image:
    """The RGB pixels that crops are cut out of.

    The loader asks libjpeg-turbo first and Pillow where that fails. They give the same pixels, so the order is
    free, and Pillow is quicker from Python; but some damaged files are read by one of the two alone. Raises
    UnreadableImage, with the loader's reason, for what it would skip.
    """
    try:
        return read_image(data)
    except UnreadableImage:
        pixels = _decoded_natively(data)
        if pixels is None:
            raise
        return pixels


def _decoded_natively(data: bytes) -> Image.Image | None:
    if not native.available():
        return None
    try:
        return Image.fromarray(engine.decode(data))
    except ValueError:
        return None
