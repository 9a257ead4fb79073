"""What the map shows, gathered from features and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console

from fastdino.data.sources import Source
from fastdino.evaluate.features import Features, progress_bar
from fastdino.evaluate.neighbours import nearest
from fastdino.visualize.dendrogram import EXAMPLE_SIDE
from fastdino.visualize.map.atlas import Atlas, pack, read_thumbnails, thumbnail_side
from fastdino.visualize.map.layout import clusters, positions, principal_directions
from fastdino.visualize.tree import ClassTree, class_tree

NEIGHBOURS = 12
CLUSTERS = 12


@dataclass(frozen=True)
class FeatureMap:
    """n pictures: `names`, `labels` (n,) int64 into `classes` with -1 for none, `positions` (n, 2) float32 in 0 .. 1,
    `clusters` (n,) int32 or empty, `neighbours` (n, k) int64, the nearest first.

    `tree` is None with fewer than two classes; `examples` are pictures of its classes, in the order of its labels.
    """

    title: str
    names: list[str]
    classes: list[str]
    labels: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float32]
    clusters: npt.NDArray[np.int32]
    neighbours: npt.NDArray[np.int64]
    atlas: Atlas
    tree: ClassTree | None
    examples: list[list[Image.Image]]


def feature_map(
    source: Source,
    features: Features,
    title: str,
    *,
    cluster_count: int = CLUSTERS,
    seed: int = 0,
    num_workers: int = 0,
    console: Console | None = None,
) -> FeatureMap:
    """The map of the pictures of `source` that `features` has.

    Args:
        source: where the thumbnails are read from.
        features: those of the pictures that could be read.
        title: what the page is called.
        cluster_count: most groups of like pictures; 0 looks for none.
        seed: that of the places and of the clusters.
        num_workers: most processes that read pictures.
        console: where progress is shown; the terminal without one.

    Raises UserError for features that are not finite.
    """
    console = console or Console()
    indices = features.indices.tolist()
    with console.status("Placing the pictures"):
        reduced = principal_directions(features.features, seed)
        placed = positions(reduced, seed)
        found = clusters(reduced, cluster_count, seed) if cluster_count else np.empty(0, dtype=np.int32)
        near = nearest_pictures(features.features)
        tree = class_tree(features.features, features.labels, source.classes)
    with progress_bar(console) as progress:
        typical = [row for rows in tree.examples for row in rows] if tree else []
        task = progress.add_task("Thumbnails", total=len(indices) + len(typical))
        side = thumbnail_side(len(indices))
        thumbnails = read_thumbnails(source, indices, side, num_workers, lambda n: progress.advance(task, n))
        shown = read_thumbnails(
            source, [indices[row] for row in typical], EXAMPLE_SIDE, 0, lambda n: progress.advance(task, n)
        )
    return FeatureMap(
        title=title,
        names=[source.name(index) for index in indices],
        classes=source.classes,
        labels=features.labels.numpy(),
        positions=placed,
        clusters=found,
        neighbours=near,
        atlas=pack(thumbnails, placed),
        tree=tree,
        examples=_by_class(tree, shown),
    )


def nearest_pictures(features: torch.Tensor) -> npt.NDArray[np.int64]:
    """The 12 rows nearest to each row of `features` (n, D), the nearest first; fewer where there are not as many."""
    k = min(NEIGHBOURS, len(features) - 1)
    if k == 0:
        return np.empty((len(features), 0), dtype=np.int64)
    return np.concatenate([piece.indices.numpy() for piece in nearest(features, None, k)])


def _by_class(tree: ClassTree | None, thumbnails: npt.NDArray[np.uint8]) -> list[list[Image.Image]]:
    pictures = iter([Image.fromarray(thumbnail) for thumbnail in thumbnails])
    return [[next(pictures) for _ in rows] for rows in tree.examples] if tree else []
