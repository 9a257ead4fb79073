from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino.data.reading import UnreadableImage
from fastdino.visualize.attention.maps import attention_maps, mass_mask
from fastdino.visualize.attention.masks import MaskScores, Truth, jaccard, read_truth, score_masks
from fastdino.visualize.transformer import as_input
from tests.fastdino.visualize.small import photograph, small_model


def file_of(labels: list[list[int]], mode: str = "L") -> bytes:
    picture = Image.fromarray(np.array(labels, dtype=np.uint8))
    if mode == "P":
        picture.putpalette([255 - value for value in range(256) for _ in range(3)])
    buffer = BytesIO()
    (picture if mode == "P" else picture.convert(mode)).save(buffer, "PNG")
    return buffer.getvalue()


def test_jaccard_by_hand() -> None:
    everything = np.ones((2, 3), dtype=bool)
    mask = np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)
    truth = np.array([[1, 0, 0], [1, 0, 1]], dtype=bool)
    assert jaccard(mask, Truth(truth, everything)) == 2 / 4
    # The pixel that only the mask has does not count, nor one that both have.
    counted = np.array([[1, 0, 1], [1, 1, 0]], dtype=bool)
    assert jaccard(mask, Truth(truth, counted)) == 1 / 2


def test_void_of_a_palette_does_not_count() -> None:
    picture = Image.new("RGB", (3, 1))
    truth = read_truth(file_of([[0, 15, 255]], "P"), picture)
    assert truth.foreground.tolist() == [[False, True, False]]
    assert truth.counted.tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("labels", "mode", "foreground", "counted"),
    [
        ([[0, 255, 255]], "L", [[0, 1, 1]], [[1, 1, 1]]),
        ([[0, 3, 255]], "L", [[0, 1, 0]], [[1, 1, 0]]),
        ([[0, 255, 255]], "1", [[0, 1, 1]], [[1, 1, 1]]),
        ([[0, 255, 255]], "RGB", [[0, 1, 1]], [[1, 1, 1]]),
    ],
)
def test_other_masks(labels: list[list[int]], mode: str, foreground: list[list[int]], counted: list[list[int]]) -> None:
    truth = read_truth(file_of(labels, mode), Image.new("RGB", (3, 1)))
    assert truth.foreground.astype(int).tolist() == foreground
    assert truth.counted.astype(int).tolist() == counted


@pytest.mark.parametrize(
    ("content", "size", "reason"),
    [
        (b"nothing", (3, 1), "cannot be read"),
        (file_of([[0, 0, 0]]), (3, 1), "no foreground"),
        (file_of([[0, 255, 255]], "P"), (3, 1), "no foreground"),
        (file_of([[0, 255, 255]]), (3, 2), "other proportions"),
    ],
)
def test_what_is_no_mask(content: bytes, size: tuple[int, int], reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        read_truth(content, Image.new("RGB", size))


def test_scores_are_those_of_the_drawn_masks() -> None:
    """A truth that is exactly one head's mask: that head is right, the others are as right as their overlap."""
    model, picture = small_model(heads=4), photograph(48, 40)
    maps = attention_maps(model, as_input(picture, "cpu"))
    masks = [mass_mask(values, 0.6).numpy().repeat(8, 0).repeat(8, 1) for values in maps]
    truth = Truth(masks[2], np.ones((40, 48), dtype=bool))
    scores = score_masks(model, [("a", picture, truth)], image_size=(40, 48))
    expected = [(mask & masks[2]).sum() / (mask | masks[2]).sum() for mask in masks]
    assert scores.heads[0].tolist() == pytest.approx(expected)
    assert scores.heads[0, 2] == 1 and scores.numbers()["best_head"] == 100
    with pytest.raises(ValueError, match="no picture"):
        score_masks(model, [])


def test_the_figures() -> None:
    scores = MaskScores(["a", "b"], torch.tensor([[0.2, 0.6], [0.5, 0.1]]), torch.tensor([0.4, 0.2]))
    numbers = scores.numbers()
    assert (numbers["best_head"], numbers["mean_of_heads"], numbers["mean_map"]) == pytest.approx((55, 35, 30))
    assert numbers["head"] == pytest.approx([35, 35])
    assert scores.per_picture()["b"] == pytest.approx([50, 10])
