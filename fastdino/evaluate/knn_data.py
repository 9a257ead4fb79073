"""Features and labels for evaluation by class: from a folder of class folders, or from files saved before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdino.config import KnnConfig
from fastdino.data.sources import FolderSource
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of
from fastdino.evaluate.extractor import Extractor
from fastdino.evaluate.features import Features
from fastdino.models.weights import save_weights


@dataclass(frozen=True)
class KnnData:
    """Pictures that vote and pictures that are classified, the latter None for leave-one-out.

    Features (n, D) float32 and labels (n,) int64, numbered alike on both sides by their place in `class_names`, which
    is empty where the names are not known. `notes` are sentences that
    whoever reads the numbers should know.
    """

    train_features: Tensor
    train_labels: Tensor
    val_features: Tensor | None = None
    val_labels: Tensor | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """What the accuracies were measured on, as plain numbers."""
        labels = self.train_labels if self.val_labels is None else torch.cat((self.train_labels, self.val_labels))
        return {
            "train_pictures": len(self.train_labels),
            "val_pictures": len(self.train_labels if self.val_labels is None else self.val_labels),
            "classes": len(labels.unique()),
            "leave_one_out": self.val_labels is None,
            "skipped": len(self.skipped),
        }


def measure_features(config: KnnConfig, extract: Extractor) -> KnnData:
    """Run the backbone over `data_path`: train/ and val/ with class folders, or class folders alone
    (leave-one-out).
    """
    sources = find_sources(Path(config.data_path))
    backbone = backbone_of(config)
    return pair_up(
        sources, [labelled_features(backbone.model, backbone.image_size, source, extract) for source in sources]
    )


def labelled_features(model: nn.Module, image_size: int, source: FolderSource, extract: Extractor) -> Features:
    """Features of the pictures in class folders."""
    return extract.features(model, source, image_size, f"Features of {source.root.name}").labelled()


def find_sources(data_path: Path) -> list[FolderSource]:
    """[train, val], or the folder alone. Raises UserError where a part or its class folders are missing."""
    train, val = data_path / "train", data_path / "val"
    if train.is_dir() != val.is_dir():
        there, missing = ("train", "val") if train.is_dir() else ("val", "train")
        raise UserError(
            f"{data_path} has {there}/ but no {missing}/: add it, or give {data_path / there} to measure that alone"
        )
    sources = [FolderSource(train), FolderSource(val)] if train.is_dir() else [FolderSource(data_path)]
    for source in sources:
        if not source.classes:
            raise UserError(
                f"{source.root} has no class folders, and accuracy is measured by class: sort its pictures into "
                "one folder a class"
            )
    return sources


def pair_up(sources: list[FolderSource], parts: list[Features]) -> KnnData:
    """Number the classes of both parts alike, by their names."""
    skipped = {name: reason for part in parts for name, reason in part.skipped.items()}
    notes = []
    for source, part in zip(sources, parts, strict=True):
        unlabelled = len(source) - len(part.labels) - len(part.skipped)
        if unlabelled > 0:
            notes.append(f"{unlabelled} pictures in {source.root} are in no class folder and left out")
    if len(parts) == 1:
        (source,) = sources
        return KnnData(parts[0].features, parts[0].labels, None, None, skipped, notes, source.classes)
    train, val = sources
    extra = [name for name in val.classes if name not in train.classes]
    if extra:
        notes.append(f"No answer can be right for classes that val/ has and train/ lacks: {', '.join(extra)}")
    # Classes of train/ keep their numbers; those of val/ alone come after them.
    names = [*train.classes, *extra]
    renumbered = torch.tensor([names.index(name) for name in val.classes])[parts[1].labels]
    return KnnData(parts[0].features, parts[0].labels, parts[1].features, renumbered, skipped, notes, names)


# The original's names, so that either project reads the other's files.
_FILES = {
    "trainfeat.pth": "train_features",
    "trainlabels.pth": "train_labels",
    "testfeat.pth": "val_features",
    "testlabels.pth": "val_labels",
}


def save_features(data: KnnData, folder: Path) -> None:
    """Write the original's four files, or the two of `train` for leave-one-out; features have unit length
    there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in _FILES.items():
        tensor = getattr(data, name)
        if tensor is None:
            # Left from another measurement, it would be paired with these.
            (folder / file).unlink(missing_ok=True)
            continue
        normalised = torch.nn.functional.normalize(tensor, dim=1) if tensor.is_floating_point() else tensor
        save_weights(normalised, folder / file)


def load_features(folder: Path) -> KnnData:
    """What `save_features` or the original's --dump_features wrote. Raises UserError for a missing or strange
    file.
    """
    tensors: dict[str, Tensor] = {}
    optional = ("val_features", "val_labels")
    if (folder / "testfeat.pth").exists() != (folder / "testlabels.pth").exists():
        raise UserError(f"{folder} has only one of testfeat.pth and testlabels.pth: dump the features again")
    for file, name in _FILES.items():
        path = folder / file
        if not path.is_file():
            if name in optional:
                continue
            raise UserError(f"{folder} has no {file}: give a folder that --dump_features wrote")
        tensors[name] = _load_tensor(path)
    for features, labels in (("train_features", "train_labels"), optional):
        if features in tensors:
            _check_pair(tensors[features], tensors[labels], folder)
    return KnnData(
        tensors["train_features"],
        tensors["train_labels"],
        tensors.get("val_features"),
        tensors.get("val_labels"),
    )


def _load_tensor(path: Path) -> Tensor:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Arbitrary bytes fail in arbitrary places of the unpickler, with errors of any kind.
        raise UserError(f"{path} cannot be read as a tensor: dump the features again") from error
    if not isinstance(content, Tensor):
        raise UserError(f"{path} holds a {type(content).__name__}, not a tensor: dump the features again")
    return content


def _check_pair(features: Tensor, labels: Tensor, folder: Path) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        raise UserError(
            f"features {tuple(features.shape)} and labels {tuple(labels.shape)} ({labels.dtype}) in "
            f"{folder} do not belong together: dump the features again"
        )
