"""The attention of every frame of a movie, as a movie; a few frames are in memory, however many there are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from rich.console import Console
from torch import Tensor

from fastdino.config import AttentionConfig
from fastdino.errors import UserError
from fastdino.evaluate.features import none_readable, progress_bar, report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.video import open_video, write_video
from fastdino.visualize.attention.maps import attention_maps, visible
from fastdino.visualize.attention.pictures import coloured, masked
from fastdino.visualize.inputs import Input, find_inputs, readable
from fastdino.visualize.pictures import overlay
from fastdino.visualize.transformer import as_input, fit_to_patches

FOLDER_RATE = Fraction(30)


class Frames(NamedTuple):
    """Pictures in time: `rate` a second, `length` of them where that is known."""

    rate: Fraction
    length: int | None
    pictures: Iterable[Image.Image]


def write_movie(model: VisionTransformer, path: Path, out: Path, config: AttentionConfig, console: Console) -> Path:
    """Write the attention in a movie, or in a folder of frames, to the movie `out`; returns that.

    Raises UserError for whatever the user can mend; there is no `out` then.
    """
    draw = _drawing(model, config)
    skipped: dict[str, str] = {}
    drawn = 0
    with open_frames(path, config.fps, skipped) as frames, writing_to(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_video(out, frames.rate) as add, progress_bar(console) as progress:
            for frame in progress.track(frames.pictures, total=frames.length, description="Attention"):
                add(draw(frame))
                drawn += 1
    report_skipped(console, skipped)
    # What a file says of its length is often some frames off.
    if not skipped and drawn < 0.9 * (frames.length or 0):
        console.print(f"{path} ends after {drawn} of {frames.length} frames", markup=False, soft_wrap=True)
    return out


@contextlib.contextmanager
def open_frames(path: Path, fps: float | None, skipped: dict[str, str]) -> Iterator[Frames]:
    """The frames of a movie, or the pictures in a folder in natural order; `fps` in place of the movie's own rate.

    Raises UserError for what is neither, and while it is read for pictures of several sizes and none readable.
    """
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)
    if path.is_dir():
        inputs = find_inputs([str(path)])
        yield Frames(rate or FOLDER_RATE, len(inputs), _of_one_size(readable(inputs, skipped), skipped))
        return
    with open_video(path) as video:
        yield Frames(rate or video.rate, video.count, video)


def draw_frame(frame: Image.Image, maps: Tensor, what: str, head: int | None, threshold: float) -> Image.Image:
    """A frame with its attention maps (heads, h, w), as large as the frame.

    `what` is one of config.MOVIES; without `head`, the mean of the heads is drawn.
    """
    if what == "heads":
        return _tiles([frame, *(overlay(frame, visible(values)) for values in maps)])
    values = maps.mean(0) if head is None else maps[head]
    if what == "map":
        return coloured(values, frame.size)
    if what == "mask":
        return masked(frame, values, threshold)
    return overlay(frame, visible(values))


def _drawing(model: VisionTransformer, config: AttentionConfig) -> Callable[[Image.Image], Image.Image]:
    if config.head is not None and not 0 <= config.head < model.num_heads:
        raise UserError(f"--head is {config.head}: this network has heads 0 to {model.num_heads - 1}")

    def draw(frame: Image.Image) -> Image.Image:
        seen = fit_to_patches(frame, config.image_size, model.patch_size)
        maps = attention_maps(model, as_input(seen, model.cls_token.device))
        return draw_frame(frame, maps, config.draw, config.head, config.threshold)

    return draw


def _of_one_size(named: Iterable[tuple[Input, Image.Image]], skipped: dict[str, str]) -> Iterator[Image.Image]:
    first: tuple[int, int] | None = None
    for one, picture in named:
        first = first or picture.size
        if picture.size != first:
            given, wanted = (" x ".join(map(str, size)) for size in (picture.size, first))
            raise UserError(f"{one.name} is {given} pixels and the first frame {wanted}: give frames of one size")
        yield picture
    if first is None:
        raise UserError(none_readable(skipped))


def _tiles(pictures: list[Image.Image]) -> Image.Image:
    """All of them small, row by row, in the size of one."""
    columns = ceil(sqrt(len(pictures)))
    canvas = Image.new("RGB", pictures[0].size)
    width, height = (max(1, side // columns) for side in canvas.size)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        canvas.paste(picture.resize((width, height)), (column * width, row * height))
    return canvas
