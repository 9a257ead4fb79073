from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino.config import CorrespondConfig
from fastdino.errors import UserError
from fastdino.visualize.patches.correspond import (
    GAP,
    HEIGHT,
    Matches,
    choose_apart,
    draw_matches,
    match_patches,
    run,
)
from tests.fastdino.visualize.small import photograph


def test_a_shuffled_picture_is_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 6, 16, generator=generator)
    order = torch.randperm(24, generator=generator)
    # Longer features are no nearer.
    second = 3 * first.flatten(0, 1)[order].reshape(3, 8, 16)
    matches = match_patches(first, second)
    assert len(matches.similarity) == 24
    assert matches.similarity.numpy() == pytest.approx(np.ones(24), abs=1e-6)
    for one, other in zip(matches.first.tolist(), matches.second.tolist(), strict=True):
        assert torch.equal(3 * first[tuple(one)], second[tuple(other)])


def test_only_mutual_neighbours_match() -> None:
    """Both patches of the first picture are nearest to the same one, and that only to one of them."""
    first = torch.tensor([[[1.0, 0.0], [1.0, 0.1]]])
    second = torch.tensor([[[1.0, 0.12]], [[-1.0, 0.0]]])
    matches = match_patches(first, second)
    assert (matches.first.tolist(), matches.second.tolist()) == ([[0, 1]], [[0, 0]])


def test_the_best_that_are_apart() -> None:
    positions = torch.tensor([[0, 0], [0, 1], [0, 3], [4, 0], [9, 9]])
    chosen = choose_apart(Matches(positions, positions, torch.arange(5, 0, -1) / 5), 3, 3)
    assert chosen.first.tolist() == [[0, 0], [0, 3], [4, 0]]
    assert chosen.similarity.tolist() == pytest.approx([1.0, 0.6, 0.4])


def test_lines_end_in_the_middle_of_their_patches() -> None:
    pictures = [Image.new("RGB", (HEIGHT, HEIGHT)), Image.new("RGB", (2 * HEIGHT, HEIGHT))]
    matches = Matches(torch.tensor([[0, 1]]), torch.tensor([[1, 3]]), torch.ones(1))
    sheet = np.asarray(draw_matches(pictures, [(2, 2), (2, 4)], matches)).astype(int)
    assert sheet.shape == (HEIGHT, 3 * HEIGHT + GAP, 3)
    quarter = HEIGHT // 4
    ends = [(quarter, 3 * quarter), (3 * quarter, HEIGHT + GAP + 7 * quarter)]
    for row, column in ends:
        assert sheet[row, column].max() > 200
    # Where there is no line the pictures are as they were.
    assert (sheet[3 * quarter, :HEIGHT] == 0).all()


def settings(tmp_path: Path, **others: Any) -> CorrespondConfig:
    for name, seed in (("a.png", 0), ("b.jpg", 1)):
        photograph(seed=seed).save(tmp_path / name)
    paths = {"first": str(tmp_path / "a.png"), "second": str(tmp_path / "b.jpg"), "output": str(tmp_path / "out.png")}
    return CorrespondConfig(**({"arch": "vit_tiny", "image_size": (48, 64), "lines": 4} | paths | others))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(settings(tmp_path))
    with Image.open(path) as sheet:
        assert sheet.size == (2 * HEIGHT * 50 // 40 + GAP, HEIGHT)
    assert "each other's nearest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"first": "missing.png"}, r"missing\.png cannot be read"),
        ({"lines": 0}, "--lines"),
        ({"output": "out.mp4"}, "--output"),
        ({"image_size": (8, 8)}, "--image_size"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, others: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(settings(tmp_path, **others))
