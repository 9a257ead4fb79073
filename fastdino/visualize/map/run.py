"""The command `fastdino map`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from fastdino.config import MapConfig
from fastdino.data.sources import Source, Subset, open_source
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of
from fastdino.evaluate.extractor import extractor
from fastdino.evaluate.features import report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.files import write_atomically
from fastdino.visualize.map.contents import feature_map
from fastdino.visualize.map.page import render
from fastdino.visualize.neighbours import evenly_spread
from fastdino.visualize.tree import WRITERS

# As many as a browser moves fluidly, and as a phone's memory holds.
MOST_PICTURES = 50_000


def run(config: MapConfig) -> None:
    """Write the map of the pictures in `data_path` to `output`, and the tree of their classes to `tree`.

    Raises UserError for everything that the user can mend, before the features are computed where that is possible.
    """
    _check(config)
    source = open_source(config.data_path)
    backbone = backbone_of(config)
    with extractor(config) as extract:
        shown = _thinned(source, extract.console)
        features = extract.features(backbone.model, shown, config.image_size or backbone.image_size, "Features")
        if not extract.world.is_main:
            return
    report_skipped(extract.console, features.skipped)
    content = feature_map(
        shown,
        features,
        f"Map of {Path(config.data_path).resolve().name}",
        cluster_count=config.clusters,
        seed=config.seed,
        num_workers=config.num_workers,
        console=extract.console,
    )
    if config.tree:
        if content.tree is None:
            raise UserError("--tree needs pictures in at least two class folders: sort them, or leave it out")
        with writing_to(config.tree, "--tree") as tree:
            write_atomically(tree, WRITERS[tree.suffix](content.tree))
    with writing_to(config.output, "--output") as output:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, render(content))
    extract.console.print(f"{output}: {len(content.names):,} pictures", highlight=False, markup=False, soft_wrap=True)


def _check(config: MapConfig) -> None:
    if Path(config.output).suffix != ".html":
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
