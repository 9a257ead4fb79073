from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from fastdino.data.sources import FolderSource, Subset
from fastdino.evaluate.compare import compare


class MeanColour(nn.Module):
    """Tells red from blue pictures perfectly."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Constant(nn.Module):
    """Knows nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 3)


def test_accuracies_of_a_perfect_and_an_ignorant_network(picture_folder: Path) -> None:
    source = FolderSource(picture_folder)
    comparison = compare(MeanColour(), Constant(), source, source, image_size=16)
    assert comparison.numbers is not None
    assert comparison.numbers["knn_top1"] == 100
    assert comparison.numbers["knn_top1_random_init"] == comparison.numbers["chance"] == 50
    # All twelve pictures vote, so that k is not a number that the set cannot give.
    assert comparison.numbers["k"] == 12
    assert "12 nearest training pictures" in comparison.numbers["explanation"]


def test_leave_one_out_when_nothing_is_held_out(picture_folder: Path) -> None:
    comparison = compare(MeanColour(), Constant(), FolderSource(picture_folder), None, image_size=16)
    assert comparison.queries is None
    assert comparison.numbers is not None
    assert comparison.numbers["k"] == 11


def test_without_classes_there_are_features_but_no_numbers(picture_folder: Path) -> None:
    comparison = compare(MeanColour(), Constant(), FolderSource(picture_folder / "red"), None, image_size=16)
    assert comparison.numbers is None
    assert comparison.gallery.features.shape == (6, 3)


def test_unreadable_pictures_are_left_out(picture_folder: Path, tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.new("RGB", (20, 20), colour).save(tmp_path / name / f"{index}.png")
    (tmp_path / "a" / "0.png").write_bytes(b"broken")
    comparison = compare(MeanColour(), Constant(), FolderSource(tmp_path), None, image_size=16)
    assert len(comparison.gallery.labels) == 5
    assert comparison.gallery.skipped.keys() == {"a/0.png"}


def test_subset_keeps_names_and_labels(picture_folder: Path) -> None:
    source = FolderSource(picture_folder)
    subset = Subset(source, [7, 2])
    assert len(subset) == 2
    assert [subset.name(0), subset.name(1)] == [source.name(7), source.name(2)]
    assert [subset.label(0), subset.label(1)] == [1, 0]
    assert subset.read(1) == source.read(2)
    assert subset.classes == source.classes
