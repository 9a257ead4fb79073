from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import squareform
from torch import Tensor

from fastdino.errors import UserError
from fastdino.visualize.dendrogram import dendrogram
from fastdino.visualize.tree import ClassTree, class_tree, newick, tree_json

CLASSES = ["cat", "car", "dog", "empty", "truck"]
DEGREES = {"cat": 0.0, "dog": 10.0, "car": 90.0, "truck": 94.0}


def directions(degrees: list[float]) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def sample() -> tuple[Tensor, Tensor]:
    """Three pictures a class, one in its middle and one 2 degrees to either side, and one without a class."""
    degrees, labels = [], []
    for name, middle in DEGREES.items():
        degrees += [middle + 2, middle, middle - 2]
        labels += [CLASSES.index(name)] * 3
    return directions([*degrees, 200.0]), torch.tensor([*labels, -1])


def tree_of_sample() -> ClassTree:
    tree = class_tree(*sample(), CLASSES, examples=1)
    assert tree is not None
    return tree


def test_like_classes_are_joined_first_by_the_cosine_distance() -> None:
    tree = tree_of_sample()
    assert tree.names == ["cat", "car", "dog", "truck"]
    assert tree.pictures == [3, 3, 3, 3]
    assert set(tree.closest()) == {"car", "truck"}
    # The mean of three directions that lie around the middle one is the middle one.
    between = 1 - np.cos(np.deg2rad([4, 10]))
    # float64 rounds cosines near 1 to some 1e-16, which is what is left of their difference from 1.
    assert tree.merges[:2, 2] == pytest.approx(between, abs=1e-14)
    across = [1 - np.cos(np.deg2rad(b - a)) for a in (0, 10) for b in (90, 94)]
    assert tree.merges[2, 2] == pytest.approx(np.mean(across), abs=1e-14)


def test_examples_are_the_most_typical_pictures() -> None:
    assert tree_of_sample().examples == [[1], [7], [4], [10]]


def test_like_classes_are_neighbours_in_the_drawing() -> None:
    tree = tree_of_sample()
    # dog, at 10 degrees, lies between cat, at 0, and the two at 90 and 94.
    assert [tree.names[leaf] for leaf in tree.order] in (["cat", "dog", "car", "truck"], ["truck", "car", "dog", "cat"])


@pytest.mark.parametrize("labels", [[], [-1, -1], [2, 2, -1]])
def test_fewer_than_two_classes_have_no_tree(labels: list[int]) -> None:
    assert class_tree(torch.ones(len(labels), 3), torch.tensor(labels, dtype=torch.int64), CLASSES) is None


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="NaN"):
        class_tree(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), torch.tensor([0, 1]), CLASSES)


def test_a_collapsed_network_still_has_a_tree() -> None:
    tree = class_tree(torch.ones(40, 3), torch.arange(40), [str(label) for label in range(40)])
    assert tree is not None
    assert tree.heights.max() == pytest.approx(0, abs=1e-12)
    assert "nan" not in dendrogram(tree, [[]] * 40).lower()


def leaf_distances(text: str) -> dict[frozenset[str], float]:
    """Lengths of the ways between leaves of a Newick tree, by a parser that knows only what we write."""
    distances: dict[frozenset[str], float] = {}
    stack: list[list[dict[str, float]]] = [[]]
    for token in re.findall(r"\(|\)|'(?:[^']|'')*'|:[\d.e-]+", text):
        if token == "(":
            stack.append([])
        elif token == ")":
            first, second = stack.pop()
            for a, to_a in first.items():
                for b, to_b in second.items():
                    distances[frozenset((a, b))] = to_a + to_b
            stack[-1].append({**first, **second})
        elif token.startswith("'"):
            stack[-1].append({token[1:-1].replace("''", "'"): 0.0})
        else:
            stack[-1][-1] = {name: way + float(token[1:]) for name, way in stack[-1][-1].items()}
    return distances


def test_newick_keeps_names_and_distances() -> None:
    names = ["it's", "a (b), c:1;", "plain", "ümlaut"]
    tree = class_tree(directions([0, 20, 70, 75]), torch.arange(4), names)
    assert tree is not None
    text = newick(tree)
    assert text.endswith(";\n")
    found = leaf_distances(text)
    expected = squareform(cophenet(tree.merges))
    assert len(found) == 6
    for (i, a), (j, b) in ((x, y) for x in enumerate(names) for y in enumerate(names) if x[0] < y[0]):
        # Each of the few branches on the way is written with six digits.
        assert found[frozenset((a, b))] == pytest.approx(expected[i, j], rel=1e-4)


def test_json_has_every_merge() -> None:
    tree = tree_of_sample()
    content: dict[str, Any] = json.loads(tree_json(tree))
    assert [one["name"] for one in content["classes"]] == tree.names
    children = [child for merge in content["merges"] for child in merge["children"]]
    assert sorted(children) == list(range(6))
    assert [merge["distance"] for merge in content["merges"]] == tree.merges[:, 2].tolist()


def test_the_drawing_has_a_row_a_class_and_every_branch_inside_it() -> None:
    tree = tree_of_sample()
    html = dendrogram(tree, [[Image.new("RGB", (8, 8))] for _ in tree.labels])
    rows = re.findall(r'<span class="name" title="(\w+)">\1</span>', html)
    assert rows == [tree.names[leaf] for leaf in tree.order]
    assert html.count("<img ") == 4
    [path] = re.findall(r'<path d="([^"]+)"', html)
    brackets = re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)H([\d.]+)", path)
    assert len(brackets) == 3
    for x1, y1, x, y2, x2 in (map(float, bracket) for bracket in brackets):
        assert 0 <= x <= min(x1, x2) <= 100
        assert 0 < y1 < 4
        assert 0 < y2 < 4
    leaves = {float(y) for x1, y1, _, y2, x2 in brackets for x, y in ((x1, y1), (x2, y2)) if float(x) == 100}
    assert leaves == {0.5, 1.5, 2.5, 3.5}


def test_names_in_the_drawing_are_text() -> None:
    names = ['<img src=x onerror="y">', "&amp;"]
    tree = class_tree(directions([0, 50]), torch.arange(2), names)
    assert tree is not None
    html = dendrogram(tree, [[], []])
    assert "<img" not in html
    assert "&amp;amp;" in html
