"""Copy detection: does a distorted picture find the one that it was made from? (DINO paper, section 4.2.2)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from fastdino.config import CopyDetectionConfig
from fastdino.data.sources import FolderSource
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of, patches_of
from fastdino.evaluate.copies import ORIGINALS, Copies, read_copies
from fastdino.evaluate.cuts import square
from fastdino.evaluate.extractor import extractor
from fastdino.evaluate.features import Features, report_skipped
from fastdino.evaluate.neighbours import check_finite, nearest
from fastdino.evaluate.output import write_numbers
from fastdino.evaluate.ranking import average_precision, positive_ranks
from fastdino.models.vision_transformer import VisionTransformer

GEM_POWER = 4
# Finds further down count as missed.
SHOWN = 20
# Directions in which features vary less than this share of the largest count as if they varied that much.
SMALLEST_VARIANCE = 1e-5


class ClsAndGem(nn.Module):
    """Pictures (B, 3, H, W) -> CLS token and generalised mean of the patches' tokens, of the last block (B, 2 D)."""

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        (tokens,) = self.backbone.get_intermediate_layers(x, 1)
        pooled = tokens[:, 1:].clamp(min=1e-6).pow(GEM_POWER).mean(dim=1).pow(1 / GEM_POWER)
        return torch.cat((tokens[:, 0], pooled), dim=1)


class Whitening(NamedTuple):
    """Features (n, D) -> (n, D) that vary alike in all directions: (x - mean) @ projection."""

    mean: Tensor
    projection: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return (features.double() - self.mean) @ self.projection


def learn_whitening(features: Tensor) -> Whitening:
    """From features (n, D), in float64, as in the original, which takes second moments for the covariance.

    Those are not centred, though what is whitened is: its figures depend on it. Raises UserError for features with NaN.
    """
    check_finite(features)
    features = features.double()
    variances, directions = torch.linalg.eigh(features.T @ features / len(features))
    variances = variances.clamp(min=float(variances.max()) * SMALLEST_VARIANCE)
    return Whitening(features.mean(dim=0), directions / variances.sqrt())


def copy_scores(database: Tensor, queries: Tensor, wanted: Sequence[int], block: Sequence[str]) -> dict[str, float]:
    """mAP in percent of each block of queries, of which there are (m, D), among the database's pictures (n, D).

    Of query i, row `wanted[i]` of the database is the original, a negative number for one that is not there, and
    `block[i]` the block. Cosine similarity; only the first SHOWN count. Raises UserError for features with NaN.
    """
    average: dict[str, list[float]] = {}
    for rows, _, indices in nearest(database, queries, min(SHOWN, len(database))):
        for order, original, name in zip(indices.cpu().numpy(), wanted[rows], block[rows], strict=True):
            average.setdefault(name, []).append(average_precision(positive_ranks(order, {original}), 1))
    return {name: 100 * sum(values) / len(values) for name, values in average.items()}


def run(config: CopyDetectionConfig) -> dict[str, Any]:
    """The command `fastdino copy-detection`: find the original of each copy, print and return the numbers.

    Returns `copy_detection` {folder of copies: mAP in percent}, `originals`, `distractors`, `copies` and `skipped`;
    `output` gets the same as JSON. Raises UserError for everything that the user can mend.
    """
    copies = read_copies(Path(config.data_path))
    distractors = FolderSource(config.distractors_path) if config.distractors_path else None
    whitening = FolderSource(config.whitening_path) if config.whitening_path else None
    backbone = patches_of(backbone_of(config), "copy detection")
    if config.imsize < backbone.patch_size:
        raise UserError(f"--imsize is {config.imsize}: give at least one patch, {backbone.patch_size} pixels")
    model = ClsAndGem(backbone)
    with extractor(config, use_cuda=config.use_cuda) as extract:
        queries = extract.features(model, copies.queries, config.imsize, "Features of originals and copies", square)
        others = [
            None if source is None else extract.features(model, source, config.imsize, f"Features of {what}", square)
            for source, what in ((distractors, "distractors"), (whitening, "pictures for whitening"))
        ]
    console, device = extract.console, extract.device
    # The originals are the first of the queries: their features serve as both.
    database = queries.features[queries.indices < len(copies.originals)].to(device)
    searching = queries.features.to(device)
    originals = len(database)
    if not originals:
        raise UserError(f"none of the pictures in {ORIGINALS}/ can be read: give pictures that Pillow can open")
    more, learnt_from = others
    if more is not None:
        database = torch.cat((database, more.features.to(device)))
    if learnt_from is not None:
        whiten = learn_whitening(learnt_from.features.to(device))
        searching, database = whiten(searching), whiten(database)
    skipped = {name: why for part in (queries, *others) if part is not None for name, why in part.skipped.items()}
    _report(console, copies, skipped)
    wanted, block = _rows(copies, queries)
    scores = copy_scores(database, searching, wanted, block)
    for name, value in scores.items():
        console.print(f"{name}: mAP {value:.1f} ({block.count(name)} pictures)", highlight=False, markup=False)
    result = {
        "copy_detection": scores,
        "originals": originals,
        "distractors": len(database) - originals,
        "copies": len(searching) - originals,
        "skipped": len(skipped),
    }
    if extract.world.is_main:
        write_numbers(result, config.output)
    return result


def _rows(copies: Copies, queries: Features) -> tuple[list[int], list[str]]:
    """Of each query that was read: the row of its original in the database, -1 if that was not, and its block."""
    indices = queries.indices.tolist()
    row = {index: number for number, index in enumerate(i for i in indices if i < len(copies.originals))}
    return [row.get(copies.wanted[index], -1) for index in indices], [copies.block[index] for index in indices]


def _report(console: Console, copies: Copies, skipped: dict[str, str]) -> None:
    report_skipped(console, skipped)
    if copies.strays:
        console.print(
            f"{len(copies.strays)} pictures are no copies of anything in {ORIGINALS}/ and left out "
            f"({', '.join(copies.strays[:5])}{', ...' if len(copies.strays) > 5 else ''})",
            markup=False,
            soft_wrap=True,
        )
