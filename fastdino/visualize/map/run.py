"""The command `fastdino map`."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from fastdino.config import MapConfig
from fastdino.data.sources import Source, Subset, open_source
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of
from fastdino.evaluate.features import extract_features, report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.files import write_atomically
from fastdino.visualize.map.contents import feature_map
from fastdino.visualize.map.page import render
from fastdino.visualize.neighbours import evenly_spread
from fastdino.visualize.tree import WRITERS

# As many as a browser moves fluidly, and as a phone's memory holds.
MOST_PICTURES = 50_000


def run(config: MapConfig) -> Path:
    """Write the map of the pictures in `data_path` to `output`, which is returned, and the tree of their classes to
    `tree`.

    Raises UserError for everything that the user can mend, before the features are computed where that is possible.
    """
    output = Path(config.output)
    _check(config, output)
    console = Console()
    source = _thinned(open_source(config.data_path), console)
    backbone = backbone_of(config)
    features = extract_features(
        backbone.model,
        source,
        image_size=config.image_size or backbone.image_size,
        batch_size=config.batch_size_per_gpu,
        num_workers=config.num_workers,
        device="cuda" if torch.cuda.is_available() else "cpu",
        console=console,
    )
    report_skipped(console, features.skipped)
    content = feature_map(
        source,
        features,
        f"Map of {Path(config.data_path).resolve().name}",
        cluster_count=config.clusters,
        seed=config.seed,
        num_workers=config.num_workers,
        console=console,
    )
    if config.tree:
        if content.tree is None:
            raise UserError("--tree needs pictures in at least two class folders: sort them, or leave it out")
        with writing_to(config.tree, "--tree") as tree:
            write_atomically(tree, WRITERS[tree.suffix](content.tree))
    with writing_to(output, "--output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, render(content))
    console.print(f"{output}: {len(content.names):,} pictures", highlight=False, markup=False, soft_wrap=True)
    return output


def _check(config: MapConfig, output: Path) -> None:
    if output.suffix != ".html":
        raise UserError(f"--output is {config.output!r}: give a file ending in .html")
    if config.tree and Path(config.tree).suffix not in WRITERS:
        raise UserError(f"--tree is {config.tree!r}: give a file ending in {' or '.join(WRITERS)}")
    if config.clusters < 0:
        raise UserError(f"--clusters is {config.clusters}: give a number of clusters, or 0 for none")


def _thinned(source: Source, console: Console) -> Source:
    if len(source) <= MOST_PICTURES:
        return source
    console.print(
        f"The map shows {MOST_PICTURES:,} of the {len(source):,} pictures, evenly spread",
        highlight=False,
        soft_wrap=True,
    )
    return Subset(source, evenly_spread(len(source), MOST_PICTURES))
