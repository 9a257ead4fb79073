"""Image retrieval by the protocol of revisited Oxford and Paris (Radenovic et al. 2018; DINO paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.config import RetrievalConfig
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of
from fastdino.evaluate.cuts import SHORTEST, thumbnail
from fastdino.evaluate.extractor import extractor
from fastdino.evaluate.features import report_skipped
from fastdino.evaluate.ground_truth import Relevant, read_json, read_revisited
from fastdino.evaluate.neighbours import nearest
from fastdino.evaluate.output import write_numbers
from fastdino.evaluate.ranking import average_precision, positive_ranks, precision_at

SCALES = (1, 2**-0.5, 0.5)
KS = (1, 5, 10)

# What counts as found and what not at all, by difficulty; the junk of the ground truth never counts.
DIFFICULTIES: dict[str, Callable[[Relevant], tuple[frozenset[int], frozenset[int]]]] = {
    "easy": lambda truth: (truth.easy, truth.junk | truth.hard),
    "medium": lambda truth: (truth.easy | truth.hard, truth.junk),
    "hard": lambda truth: (truth.hard, truth.junk | truth.easy),
}


class MultiScale(nn.Module):
    """Pictures (B, 3, H, W) -> the mean (B, D) of the backbone's features at SCALES, divided by its length."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        smaller = (F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False) for scale in SCALES[1:])
        return F.normalize(sum((self.backbone(each) for each in smaller), self.backbone(x)), dim=1)


def retrieval_scores(
    gallery: Tensor, queries: Tensor, relevant: Sequence[Relevant], ks: Sequence[int] = KS
) -> dict[str, dict[str, Any]]:
    """mAP and mP@k in percent by difficulty: {"easy": {"map": ..., "mp": {1: ..., }, "queries": n}, "medium", "hard"}.

    `gallery` (n, D) and `queries` (m, D) are ranked by cosine similarity; `relevant` (m) holds rows of the gallery.
    Queries with nothing to find count nowhere; a difficulty without others is left out. Raises UserError where all are
    left out, and for features with NaN.
    """
    _require_something_to_find(relevant)
    found: dict[str, list[list[float]]] = {name: [] for name in DIFFICULTIES}
    for rows, _, indices in nearest(gallery, queries, len(gallery)):
        orders = indices.cpu().numpy()
        for order, truth in zip(orders, relevant[rows], strict=True):
            for name, split in DIFFICULTIES.items():
                positives, junk = split(truth)
                if positives:
                    ranks = positive_ranks(order, positives, junk)
                    precisions = [precision_at(ranks, k) for k in ks]
                    found[name].append([average_precision(ranks, len(positives)), *precisions])
    scores: dict[str, dict[str, Any]] = {}
    for name, values in found.items():
        if values:
            average, *precisions = (100 * torch.tensor(values, dtype=torch.float64).mean(dim=0)).tolist()
            scores[name] = {"map": average, "mp": dict(zip(ks, precisions, strict=True)), "queries": len(values)}
    return scores


def _require_something_to_find(relevant: Sequence[Relevant]) -> None:
    if not any(truth.easy or truth.hard for truth in relevant):
        raise UserError("no query has a picture to find: name some under easy or hard in the ground truth")


def run(config: RetrievalConfig) -> dict[str, Any]:
    """The command `fastdino retrieval`: rank a folder's pictures for each query, print and return the numbers.

    Returns `retrieval` as `retrieval_scores` does, `gallery_pictures`, `query_pictures` and `skipped`; `output` gets
    the same as JSON. Raises UserError for everything that the user can mend.
    """
    folder = Path(config.data_path)
    if config.imsize < 1:
        raise UserError(f"--imsize is {config.imsize}: give the longer side of the pictures in pixels, such as 224")
    if config.ground_truth is None:
        data = read_revisited(folder, config.dataset)
    else:
        data = read_json(folder, Path(config.ground_truth))
    _require_something_to_find(data.relevant)
    backbone = backbone_of(config)
    smallest = int(SHORTEST * (SCALES[-1] if config.multiscale else 1))
    if (backbone.patch_size or 0) > smallest:
        raise UserError(
            f"sides may be as short as {smallest} pixels and a patch has {backbone.patch_size}: give weights with "
            "smaller patches"
        )
    model = MultiScale(backbone.model) if config.multiscale else backbone.model
    with extractor(config, use_cuda=config.use_cuda) as extract:
        gallery, queries = (
            extract.features(model, source, config.imsize, description, thumbnail)
            for source, description in ((data.gallery, "Features to search"), (data.queries, "Features of queries"))
        )
    console, device = extract.console, extract.device
    skipped = {**gallery.skipped, **queries.skipped}
    report_skipped(console, skipped)
    # Rows of unreadable pictures are missing; what should be found and cannot be read counts as not found.
    row = {index: number for number, index in enumerate(gallery.indices.tolist())}
    absent = {index: -1 - index for index in range(len(data.gallery)) if index not in row}
    relevant = [data.relevant[index].renumbered({**row, **absent}) for index in queries.indices.tolist()]
    scores = retrieval_scores(gallery.features.to(device), queries.features.to(device), relevant)
    for name, values in scores.items():
        precisions = ", ".join(f"mP@{k} {value:.2f}" for k, value in values["mp"].items())
        console.print(f"{name}: mAP {values['map']:.2f}, {precisions} ({values['queries']} queries)", highlight=False)
    result = {
        "retrieval": scores,
        "gallery_pictures": len(gallery.features),
        "query_pictures": len(queries.features),
        "skipped": len(skipped),
    }
    if extract.world.is_main:
        write_numbers(result, config.output)
    return result
