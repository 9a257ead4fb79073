"""The crops of one picture with what was drawn for each, on one sheet."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console

from fastdino.config import PreviewConfig
from fastdino.data.apply import apply_plan
from fastdino.data.plan import CropPlan, crop_plan
from fastdino.data.reading import UnreadableImage, read_image, reason_of
from fastdino.data.recipe import recipe_of
from fastdino.errors import UserError
from fastdino.evaluate.output import writing_to
from fastdino.visualize.pictures import fit, save_png

Colour = tuple[int, int, int]

_BACKGROUND = (250, 250, 248)
_INK = (40, 40, 40)
_FAINT = (120, 120, 120)
_GAP = 24
_FRAME = 5
_TEXT = 15
_LINE = 21
_GLOBAL_SIDE = 320
_LOCAL_SIDE = 192
_LOCALS_IN_A_ROW = 4
_CAPTION_WIDTH = 150
_BOX_LINES = 3
_WIDTH = _LOCALS_IN_A_ROW * (_LOCAL_SIDE + 2 * _FRAME + _CAPTION_WIDTH + _GAP) - _GAP
_PICTURE_SIDE = _WIDTH - 2 * (_GLOBAL_SIDE + 2 * _FRAME + _GAP)
_GLOBAL_COLOURS: tuple[Colour, Colour] = ((20, 105, 190), (215, 95, 15))


def draw_crops(picture: Image.Image, crops: Sequence[Image.Image], plan: Sequence[CropPlan], title: str) -> Image.Image:
    """The picture with the crops' boxes in it, then every crop, enlarged or shrunk to be seen, with its parameters."""
    colours = _colours(len(plan))
    tiles = []
    for number, (crop, drawn, colour) in enumerate(zip(crops, plan, colours, strict=True)):
        framed = _framed(crop, colour, _GLOBAL_SIDE if number < 2 else _LOCAL_SIDE)
        tiles.append(_captioned(framed, [_name(number), *captions(drawn)], colour, beside=number >= 2))
    overview = _captioned(_with_boxes(picture, plan, colours), [title], _INK, beside=False)
    local = tiles[2:]
    rows = [[overview, *tiles[:2]]]
    rows += [local[first : first + _LOCALS_IN_A_ROW] for first in range(0, len(local), _LOCALS_IN_A_ROW)]
    return _sheet(rows)


def captions(crop: CropPlan) -> list[str]:
    """What happens to the crop, in its order, a line each."""
    lines = [f"{crop.width} x {crop.height}", f"at {crop.left}, {crop.top}", f"to {crop.size} x {crop.size}"]
    if crop.flip:
        lines.append("flipped")
    for operation, factor in crop.jitter:
        lines.append(f"hue {360 * factor:+.0f}°" if operation == "hue" else f"{operation} x {factor:.2f}")
    if crop.grayscale:
        lines.append("grey")
    if crop.blur_radius:
        lines.append(f"blur {crop.blur_radius:.2f} px")
    if crop.solarize:
        lines.append("solarised")
    return lines


def run(config: PreviewConfig) -> Path:
    """The command `fastdino crops`: what training cuts out of one picture, as a PNG. Returns its path.

    Raises UserError for everything that the user can mend.
    """
    recipe = recipe_of(config)
    path = Path(config.image_path)
    try:
        data = path.read_bytes()
        picture = read_image(data)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}): give a picture.") from error
    except UnreadableImage as error:
        raise UserError(f"{path} is not a picture that training would use ({error}): give another.") from error
    plan = crop_plan(config.seed, config.epoch, 0, picture.width, picture.height, recipe)
    crops = [_image(crop) for crop in apply_plan(data, plan)]
    title = f"seed {config.seed}, epoch {config.epoch}: {path.name}, {picture.width} x {picture.height}"
    sheet = draw_crops(picture, crops, plan, title)
    with writing_to(config.output, "--output") as output:
        save_png(sheet, output)
    Console().print(f"{len(crops)} crops drawn: {output}", markup=False, highlight=False, soft_wrap=True)
    return output


def _image(crop: torch.Tensor) -> Image.Image:
    return Image.fromarray(crop.permute(1, 2, 0).numpy())


def _name(number: int) -> str:
    return f"global {number + 1}" if number < 2 else f"local {number - 1}"


def _colours(count: int) -> list[Colour]:
    """Two strong colours for the global crops, hues all around the circle for the local ones."""
    local = count - 2
    hues = [colorsys.hls_to_rgb(number / max(1, local), 0.42, 0.62) for number in range(local)]
    return [*_GLOBAL_COLOURS, *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues)]


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _with_boxes(picture: Image.Image, plan: Sequence[CropPlan], colours: Sequence[Colour]) -> Image.Image:
    shown = _scaled(picture, _PICTURE_SIDE)
    across, down = shown.width / picture.width, shown.height / picture.height
    draw = ImageDraw.Draw(shown)
    corners = []
    for crop, colour in zip(plan, colours, strict=True):
        left, top = crop.left * across, crop.top * down
        right, bottom = max(left, left + crop.width * across - 1), max(top, top + crop.height * down - 1)
        draw.rectangle((left, top, right, bottom), outline="white", width=_FRAME)
        inset = min(1, (right - left) / 2, (bottom - top) / 2)
        draw.rectangle((left + inset, top + inset, right - inset, bottom - inset), outline=colour, width=3)
        corners.append((left, top))
    _label_boxes(draw, corners, colours, shown.size)
    return shown


def _label_boxes(
    draw: ImageDraw.ImageDraw,
    corners: Sequence[tuple[float, float]],
    colours: Sequence[Colour],
    size: tuple[int, int],
) -> None:
    """The crops' short names at their boxes' upper left corners, moved on where another one is in the way."""
    font = _font(_TEXT)
    taken: list[tuple[float, float]] = []
    for number, ((left, top), colour) in enumerate(zip(corners, colours, strict=True)):
        kind, position = _name(number).split()
        width = draw.textlength("l00", font) + 6
        left, top = max(0, min(left, size[0] - width)), max(0, min(top, size[1] - _LINE))
        while any(abs(left - x) < width and abs(top - y) < _LINE for x, y in taken) and top + 2 * _LINE <= size[1]:
            top += 1
        taken.append((left, top))
        draw.rectangle((left, top, left + width, top + _LINE - 1), fill=colour)
        draw.text((left + width / 2, top + _LINE / 2), kind[0] + position, "white", font, anchor="mm")


def _scaled(picture: Image.Image, side: int) -> Image.Image:
    """`picture` with its longer side `side`."""
    if max(picture.size) >= side:
        return fit(picture, side).copy()
    width, height = (max(1, round(length * side / max(picture.size))) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _framed(crop: Image.Image, colour: Colour, side: int) -> Image.Image:
    return ImageOps.expand(_scaled(crop, side), _FRAME, colour)


def _captioned(picture: Image.Image, lines: Sequence[str], colour: Colour, *, beside: bool) -> Image.Image:
    """`picture` with text to its right or below it: a title in `colour`, the box in grey, the rest in black."""
    height = len(lines) * _LINE
    if beside:
        tile = Image.new("RGB", (picture.width + _CAPTION_WIDTH, max(picture.height, height)), _BACKGROUND)
        left, top = picture.width + 10, 0
    else:
        width = max(picture.width, _GLOBAL_SIDE)
        tile = Image.new("RGB", (width, picture.height + 6 + height), _BACKGROUND)
        left, top = 0, picture.height + 6
    tile.paste(picture)
    draw = ImageDraw.Draw(tile)
    for number, line in enumerate(lines):
        ink = colour if number == 0 else _FAINT if number <= _BOX_LINES else _INK
        font = _font(_TEXT + 2 if number == 0 else _TEXT)
        draw.text((left, top + (number + 0.5) * _LINE), line, ink, font, anchor="lm")
    return tile


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    height = sum(max(tile.height for tile in row) + _GAP for row in rows) + _GAP
    sheet = Image.new("RGB", (_WIDTH + 2 * _GAP, height), _BACKGROUND)
    top = _GAP
    for row in rows:
        left = _GAP
        for tile in row:
            sheet.paste(tile, (left, top))
            left += tile.width + _GAP
        top += max(tile.height for tile in row) + _GAP
    return sheet
