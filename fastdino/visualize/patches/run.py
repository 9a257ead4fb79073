"""The command `fastdino patches`: foreground and parts of pictures, without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from fastdino.config import PatchesConfig
from fastdino.errors import UserError
from fastdino.evaluate.features import none_readable, progress_bar, report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.visualize.inputs import find_inputs, readable
from fastdino.visualize.patches.components import Parts, find_parts
from fastdino.visualize.patches.features import patch_features
from fastdino.visualize.pictures import enlarge, fit, outline, picture_grid, save_png
from fastdino.visualize.transformer import load_transformer

SHEET_NAME = "patches.png"
SHEET_SIDE = 240
PICTURES_ON_SHEET = 12


def run(config: PatchesConfig) -> list[Path]:
    """Write the foreground and the parts of every picture, and a sheet of the first ones. Returns the paths.

    Raises UserError for everything that the user can mend.
    """
    if not config.inputs:
        raise UserError("give pictures, or folders of pictures")
    inputs = find_inputs(config.inputs)
    model = load_transformer(config)
    console = Console()
    skipped: dict[str, str] = {}
    places, pictures, features = [], [], []
    with progress_bar(console) as progress:
        for one, picture in readable(progress.track(inputs, description="Patches"), skipped):
            features.append(patch_features(model, picture, config.image_size))
            # No larger than its patches, since all of them stay in memory.
            pictures.append(fit(picture, model.patch_size * max(features[-1].shape[:2])))
            places.append(Path(config.output_dir) / one.place)
    if not features:
        raise UserError(none_readable(skipped))
    drawn = [draw_parts(picture, parts) for picture, parts in zip(pictures, find_parts(features), strict=True)]
    paths = []
    with writing_to(config.output_dir, "--output_dir"):
        for place, (foreground, parts) in zip(places, drawn, strict=True):
            place.mkdir(parents=True, exist_ok=True)
            paths += [save_png(foreground, place / "foreground.png"), save_png(parts, place / "parts.png")]
        rows = [[picture, *both] for picture, both in zip(pictures, drawn, strict=True)][:PICTURES_ON_SHEET]
        labels = [["picture", "foreground", "parts"]] * len(rows)
        paths.append(save_png(picture_grid(rows, SHEET_SIDE, labels), Path(config.output_dir) / SHEET_NAME))
    report_skipped(console, skipped)
    console.print(f"{len(paths)} files written; look at {paths[-1]} first", markup=False, soft_wrap=True)
    return paths


def draw_parts(picture: Image.Image, parts: Parts) -> tuple[Image.Image, Image.Image]:
    """A picture with its foreground tinted and edged, and its parts as colours on black, as large as the picture."""
    colours = Image.fromarray(np.rint(255 * parts.colours.numpy()).astype(np.uint8))
    return (
        outline(picture, enlarge(parts.foreground.numpy(), picture.size)),
        colours.resize(picture.size, Image.Resampling.NEAREST),
    )
