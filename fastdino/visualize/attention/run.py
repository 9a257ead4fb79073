"""The command `fastdino attention`: pictures, movies and figures of what a vision transformer attends to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from fastdino import video
from fastdino.config import AttentionConfig
from fastdino.errors import UserError
from fastdino.evaluate.features import none_readable, progress_bar, report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.files import write_atomically
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.visualize.attention.masks import score_masks, with_truth
from fastdino.visualize.attention.movie import write_movie
from fastdino.visualize.attention.pictures import SHEET_NAME, SHEET_SIDE, draw_attention, overview, save_attention
from fastdino.visualize.inputs import Input, find_inputs, readable
from fastdino.visualize.pictures import fit, save_png
from fastdino.visualize.transformer import check_image_size, load_transformer

SCORES_NAME = "jaccard.json"
PICTURES_IN_OVERVIEW = 24


def run(config: AttentionConfig) -> list[Path]:
    """Draw the attention in pictures or in a movie, or measure it against masks. Returns the paths written.

    Raises UserError for everything that the user can mend.
    """
    if not 0 < config.threshold <= 1:
        raise UserError(f"--threshold is {config.threshold}: give a share of the attention above 0 and up to 1")
    paths = [*config.inputs, *filter(None, [config.image_path])]
    if not paths:
        raise UserError("give a picture, a folder of pictures or a movie")
    console = Console()
    movies = [path for path in paths if Path(path).suffix.lower() in video.READABLE]
    if movies or config.out:
        return [_movie(config, paths, console)]
    inputs = find_inputs(paths)
    model = _model(config)
    if config.masks:
        return [_scores(config, model, inputs, console)]
    return _pictures(config, model, inputs, console)


def _model(config: AttentionConfig) -> VisionTransformer:
    model = load_transformer(config)
    check_image_size(config.image_size, model.patch_size)
    return model


def _movie(config: AttentionConfig, paths: list[str], console: Console) -> Path:
    path = Path(paths[0])
    if len(paths) > 1:
        raise UserError(f"a movie is made of one movie or one folder of frames, not of {len(paths)}: give one")
    if not path.exists():
        raise UserError(f"there is no movie or folder {path}: give one that exists")
    out = Path(config.out or Path(config.output_dir) / f"{path.stem}_attention.mp4")
    video.check_writable(out)
    if config.masks:
        raise UserError("--masks are for pictures, not for movies: leave them out, or --out and the movie")
    if config.fps is not None and not 0.001 <= config.fps <= 1000:
        raise UserError(f"--fps is {config.fps:g}: give frames a second, from 0.001 to 1000")
    if out.resolve() == path.resolve():
        raise UserError(f"--out is the movie itself, {path}: give another name")
    write_movie(_model(config), path, out, config, console)
    console.print(f"written: {out}", markup=False, soft_wrap=True)
    return out


def _pictures(config: AttentionConfig, model: VisionTransformer, inputs: list[Input], console: Console) -> list[Path]:
    skipped: dict[str, str] = {}
    paths: list[Path] = []
    pairs: list[tuple[Image.Image, Image.Image]] = []
    with progress_bar(console) as progress:
        for one, picture in readable(progress.track(inputs, description="Attention"), skipped):
            drawn = draw_attention(
                model,
                picture,
                image_size=config.image_size,
                threshold=config.threshold,
                device=model.cls_token.device,
            )
            folder = Path(config.output_dir) / one.place
            with writing_to(folder, "--output_dir"):
                paths += save_attention(drawn, folder, config.threshold)
            if len(pairs) < PICTURES_IN_OVERVIEW:
                pairs.append((fit(drawn.picture, SHEET_SIDE), fit(drawn.mean, SHEET_SIDE)))
    if not paths:
        raise UserError(none_readable(skipped))
    report_skipped(console, skipped)
    sheet = next(path for path in paths if path.name == SHEET_NAME)
    if len(inputs) > 1:
        sheet = Path(config.output_dir) / SHEET_NAME
        with writing_to(sheet, "--output_dir"):
            paths.append(save_png(overview(pairs), sheet))
    console.print(f"{len(paths)} files written; look at {sheet} first", markup=False, soft_wrap=True)
    return paths


def _scores(config: AttentionConfig, model: VisionTransformer, inputs: list[Input], console: Console) -> Path:
    masks = _masks(Path(config.masks), inputs)
    measured = [one for one in inputs if one.stem in masks]
    if not measured:
        raise UserError(
            f"no mask in {config.masks} belongs to a picture: a mask has its picture's name, but for the ending"
        )
    skipped: dict[str, str] = {}
    with progress_bar(console) as progress:
        pictures = readable(progress.track(measured, description="Masks"), skipped)
        scores = score_masks(
            model,
            with_truth(pictures, masks, skipped),
            image_size=config.image_size,
            threshold=config.threshold,
        )
    report_skipped(console, skipped)
    if len(measured) < len(inputs):
        console.print(f"{len(inputs) - len(measured):,} pictures without a mask left out", highlight=False)
    numbers = scores.numbers()
    for line in _table(numbers, config.threshold):
        console.print(line, highlight=False)
    path = Path(config.output_dir) / SCORES_NAME
    with writing_to(path, "--output_dir"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({**numbers, "per_picture": scores.per_picture()}, indent=2) + "\n")
    return path


def _masks(path: Path, inputs: list[Input]) -> dict[Path, Callable[[], bytes]]:
    """The file of every mask by its path below the folder, without the ending; a single file is a single picture's."""
    if path.is_file():
        if len(inputs) > 1:
            raise UserError(f"{path} is one mask and there are {len(inputs)} pictures: give the folder of their masks")
        return {inputs[0].stem: path.read_bytes}
    return {mask.stem: mask.read for mask in find_inputs([str(path)])}


def _table(numbers: dict[str, Any], threshold: float) -> list[str]:
    heads = enumerate(numbers["head"])
    return [
        f"Jaccard index in percent of masks that hold {100 * threshold:g} % of the attention, "
        f"mean over {numbers['pictures']:,} pictures:",
        f"  best head of each picture  {numbers['best_head']:5.1f}",
        f"  mean of the heads          {numbers['mean_of_heads']:5.1f}",
        f"  mask of the mean map       {numbers['mean_map']:5.1f}",
        *(f"  head {head:<22}{score:5.1f}" for head, score in heads),
    ]
