"""Gathers what report.html shows of a finished run, and results.json says."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from rich.console import Console
from torch import nn

import fastdino
from fastdino import native
from fastdino.config import TrainConfig
from fastdino.cores import usable_cores
from fastdino.data.plan import CropRecipe, crop_plan
from fastdino.data.reading import UnreadableImage, read_image
from fastdino.data.sources import Joined, Source
from fastdino.errors import UserError
from fastdino.evaluate.compare import Comparison, Known, compare
from fastdino.evaluate.features import together
from fastdino.files import write_atomically
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.reference.augment import apply_plan
from fastdino.train.build import untrained_backbone
from fastdino.train.results import write_results
from fastdino.train.sample import Sample, batch_size, sample_of
from fastdino.visualize.attention.pictures import draw_attention
from fastdino.visualize.contributions import draw_contributions
from fastdino.visualize.map.contents import FeatureMap, feature_map
from fastdino.visualize.map.page import render
from fastdino.visualize.neighbours import evenly_spread, neighbour_rows
from fastdino.visualize.picture_sections import MAP
from fastdino.visualize.report import Report, write_report
from fastdino.visualize.verdict import health

PICTURES_SHOWN = 4
# Enough patches a side to show shapes; more would take longer than they tell.
ATTENTION_PATCHES = 24


class RunReport(NamedTuple):
    """The page, its k-NN figures (None without classes) and its verdict, the most important sentence first."""

    path: Path
    knn: dict[str, Any] | None
    verdict: list[str]


def write_run_report(
    config: TrainConfig,
    source: Source,
    recipe: CropRecipe,
    teacher: nn.Module,
    log: Sequence[Mapping[str, Any]],
    device: torch.device,
    console: Console,
    *,
    held_out: Source | None = None,
    photographs: Sequence[tuple[str, Image.Image]] = (),
    known: Known | None = None,
) -> RunReport:
    """Measure `teacher` (a backbone), draw what it learned, and write report.html, map.html and results.json into
    `config.output_dir`.

    Without `held_out` pictures a sample of the training pictures is measured leave-one-out. What is `known` from
    training is not measured again. Where the network looks is shown in `photographs` (captions and pictures), without
    them in some of those that were measured.
    """
    sample = sample_of(source, held_out)
    comparison = compare(
        teacher,
        untrained_backbone(config),
        *sample,
        image_size=config.global_size,
        batch_size=batch_size(config),
        num_workers=min(config.num_workers, 2),
        device=device,
        console=console,
        known=known,
    )
    judgement = health(log, config.out_dim, comparison.numbers)
    shown_source = held_out or source
    shown = photographs or [(shown_source.name(index), picture) for index, picture in shown_pictures(shown_source)]
    path = Path(config.output_dir) / "report.html"
    about = environment(device)
    # Many folders are called train; the one above tells which.
    data = "/".join(Path(config.data_path).resolve().parts[-2:])
    space = write_map(path.with_name(MAP), f"Map of {data}", sample, comparison, config, console)
    write_report(
        path,
        Report(
            title=f"DINO on {data}",
            config=dataclasses.asdict(config),
            environment=about,
            log=log,
            crops=sample_crops(source, recipe, config.seed),
            attention=attention_pictures(teacher, shown, config, device),
            contributions=contribution_pictures(teacher, shown, config, device),
            space=space,
            knn=comparison.numbers,
            neighbours=neighbour_rows(sample.gallery, comparison.gallery, sample.queries, comparison.queries),
            verdict=judgement.sentences,
            tone=judgement.tone,
        ),
    )
    write_results(path.parent, log, sample, comparison.numbers, judgement, about)
    return RunReport(path, comparison.numbers, judgement.sentences)


def shown_pictures(source: Source, wanted: int = PICTURES_SHOWN) -> list[tuple[int, Image.Image]]:
    """Indices and pictures spread over the source; unreadable ones are passed over."""
    pictures = []
    for index in evenly_spread(len(source), wanted):
        try:
            pictures.append((index, read_image(source.read(index))))
        except (UnreadableImage, OSError):
            continue
    return pictures


def sample_crops(source: Source, recipe: CropRecipe, seed: int) -> list[list[Image.Image]]:
    """The crops of epoch 0 of a few pictures, as training saw them."""
    rows = []
    for index, picture in shown_pictures(source):
        plan = crop_plan(seed, 0, index, picture.width, picture.height, recipe)
        rows.append([Image.fromarray(crop) for crop in apply_plan(picture, plan)])
    return rows


def attention_pictures(
    model: nn.Module, pictures: Sequence[tuple[str, Image.Image]], config: TrainConfig, device: torch.device
) -> list[tuple[str, Image.Image]]:
    """A captioned poster of attention maps a picture; none for architectures without a CLS token."""
    if not isinstance(model, VisionTransformer):
        return []
    side = max(config.global_size, ATTENTION_PATCHES * config.patch_size)
    return [
        (name, draw_attention(model, picture, image_size=(side, side), device=device).poster())
        for name, picture in pictures
    ]


def contribution_pictures(
    model: nn.Module, pictures: Sequence[tuple[str, Image.Image]], config: TrainConfig, device: torch.device
) -> list[tuple[str, Image.Image]]:
    """The same for a network whose features are means over places; none for others."""
    if isinstance(model, VisionTransformer):
        return []
    was_training = model.training
    model.eval()
    drawn = [
        (name, draw_contributions(model, picture, image_size=config.global_size, device=device))
        for name, picture in pictures
    ]
    model.train(was_training)
    return [(name, poster) for name, poster in drawn if poster is not None]


def write_map(
    path: Path, title: str, sample: Sample, comparison: Comparison, config: TrainConfig, console: Console
) -> FeatureMap | None:
    """Write the interactive map of the pictures that were measured; where that fails, say why and return None."""
    parts = [comparison.gallery] if comparison.queries is None else [comparison.gallery, comparison.queries]
    try:
        space = feature_map(
            Joined(sample.sources),
            together(parts, [len(source) for source in sample.sources]),
            title,
            seed=config.seed,
            num_workers=min(config.num_workers, 2),
            console=console,
        )
        write_atomically(path, render(space))
    except (UserError, ValueError, OSError) as error:
        console.print(f"[yellow]note:[/] no map was drawn: {error}", highlight=False, soft_wrap=True)
        return None
    return space


def environment(device: torch.device) -> dict[str, str]:
    """What a number depends on besides the settings."""
    packages = ("torch", "torchvision", "timm", "pillow", "numpy")
    return {
        "fastdino": fastdino.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {usable_cores()} cores",
        "threads": str(torch.get_num_threads()),
        "native extension": "yes" if native.available() else native.why_not(),
    }
