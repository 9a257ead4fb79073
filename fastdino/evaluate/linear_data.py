"""Tokens and labels for linear classification, and how pictures are held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdino.config import LinearConfig
from fastdino.data.sources import Source
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of
from fastdino.evaluate.extractor import Extractor
from fastdino.evaluate.knn_data import find_sources, labelled_features, pair_up
from fastdino.models.vision_transformer import VisionTransformer

HELD_OUT = 0.2


class LastBlocks(nn.Module):
    """Pictures (B, 3, H, W) -> the CLS tokens of the last blocks, joined (B, n_last_blocks * D).

    With `avgpool` each number of the last CLS token is followed by that of the patches' mean, D more, which for one
    block is the order of the original's classifiers.
    """

    def __init__(self, backbone: VisionTransformer, n_last_blocks: int, avgpool: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_last_blocks = n_last_blocks
        self.avgpool = avgpool

    def forward(self, x: Tensor) -> Tensor:
        blocks = self.backbone.get_intermediate_layers(x, self.n_last_blocks)
        parts = [tokens[:, 0] for tokens in blocks]
        if self.avgpool:
            parts[-1] = torch.stack((parts[-1], blocks[-1][:, 1:].mean(dim=1)), dim=-1).flatten(1)
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Part:
    """Features (n, D) float32 and labels (n,) int64."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TrainingPictures:
    """Those at `indices` (n,) int64 of a source, and what makes features of them at `image_size`."""

    model: nn.Module
    source: Source
    indices: Tensor
    image_size: int


@dataclass(frozen=True)
class LinearData:
    """What trains (nothing, for a trained classifier), as `pictures` and as features of their middle, and what is
    measured.

    Labels are places in `class_names`, of which the first `train_classes` can be answered.
    """

    pictures: TrainingPictures
    train: Part
    test: Part
    train_classes: int
    class_names: list[str]
    split: bool
    skipped: dict[str, str]
    notes: list[str]

    def counts(self) -> dict[str, Any]:
        """What the accuracies were measured on, as plain numbers."""
        return {
            "train_pictures": len(self.train.labels),
            "val_pictures": len(self.test.labels),
            "classes": len(torch.cat((self.train.labels, self.test.labels)).unique()),
            "split": self.split,
            "skipped": len(self.skipped),
        }


def hold_out(labels: Tensor, seed: int) -> Tensor:
    """Mask (n,) bool of a fifth of each class in `labels` (n,), at least one picture where the class has two."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten().cpu()
        count = max(1, round(HELD_OUT * len(rows))) if len(rows) > 1 else 0
        mask[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return mask.to(labels.device)


def measure_tokens(config: LinearConfig, extract: Extractor, trained_classes: int | None = None) -> LinearData:
    """Features of `data_path`; for a classifier trained before, of `trained_classes` classes, only those to measure.

    Raises UserError for a folder that cannot be measured.
    """
    sources = find_sources(Path(config.data_path))
    names = list(sources[0].classes)
    if trained_classes not in (None, len(names)):
        raise UserError(
            f"{config.pretrained_linear} tells {trained_classes} classes apart and {sources[0].root} has {len(names)} "
            "class folders: give the folder that it was trained for"
        )
    backbone = backbone_of(config)
    model = tokens_of(backbone.model, config)
    if trained_classes is not None:
        part = labelled_features(model, backbone.image_size, sources[-1], extract)
        names += [name for name in sources[-1].classes if name not in names]
        labels = torch.tensor([names.index(name) for name in sources[-1].classes])[part.labels]
        _check_test(labels)
        nothing = Part(part.features[:0], labels[:0])
        pictures = TrainingPictures(model, sources[0], part.indices[:0], backbone.image_size)
        return LinearData(
            pictures, nothing, Part(part.features, labels), trained_classes, names, False, part.skipped, notes=[]
        )
    parts = [labelled_features(model, backbone.image_size, source, extract) for source in sources]
    data, indices = pair_up(sources, parts), parts[0].indices
    train, notes = Part(data.train_features, data.train_labels), list(data.notes)
    if data.val_features is not None and data.val_labels is not None:
        test = Part(data.val_features, data.val_labels)
    else:
        mask = hold_out(train.labels, config.seed)
        test = Part(train.features[mask], train.labels[mask])
        train, indices = Part(train.features[~mask], train.labels[~mask]), indices[~mask]
        notes.append("There is no train/ and val/: a fifth of each class, drawn by --seed, is the test")
    _check_test(test.labels)
    pictures = TrainingPictures(model, sources[0], indices, backbone.image_size)
    return LinearData(pictures, train, test, len(names), data.class_names, data.val_labels is None, data.skipped, notes)


def tokens_of(backbone: nn.Module, config: LinearConfig) -> nn.Module:
    """What a classifier gets: for a VisionTransformer its last blocks, else its features.

    Raises UserError for more blocks than there are.
    """
    if not isinstance(backbone, VisionTransformer):
        return backbone
    if not 1 <= config.n_last_blocks <= len(backbone.blocks):
        raise UserError(f"--n_last_blocks is {config.n_last_blocks}: give a number from 1 to {len(backbone.blocks)}")
    return LastBlocks(backbone, config.n_last_blocks, config.avgpool_patchtokens)


def _check_test(labels: Tensor) -> None:
    if len(labels) == 0:
        raise UserError("there is no picture to test on: give val/ pictures, or two pictures in some class folder")
