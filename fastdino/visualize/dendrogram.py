"""A tree of classes as HTML: the branches are an SVG of any width, the leaves rows of text and pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from PIL import Image

from fastdino.visualize.pictures import data_uri
from fastdino.visualize.tree import ClassTree

EXAMPLE_SIDE = 48

# A leaf's name as HTML, from its label and its name.
Name = Callable[[int, str], str]


def dendrogram(tree: ClassTree, examples: Sequence[Sequence[Image.Image]], name: Name | None = None) -> str:
    """The tree with its root on the left, and `examples` of every class in the order of `tree.labels`."""
    name = name or _plain_name
    rows = "".join(_row(tree, leaf, examples[leaf], name) for leaf in tree.order)
    first, second = tree.closest()
    spoken = f"Tree of {len(tree.labels)} classes; the two most alike are {first} and {second}"
    return (
        f'<div class="tree"><svg viewBox="0 0 100 {len(tree.labels)}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(spoken)}">{_branches(tree)}</svg><ul>{rows}</ul></div>'
    )


def _row(tree: ClassTree, leaf: int, examples: Sequence[Image.Image], name: Name) -> str:
    pictures = "".join(
        f'<img src="{data_uri(picture)}" alt="" width="{picture.width}" height="{picture.height}">'
        for picture in examples
    )
    return (
        f'<li>{name(tree.labels[leaf], tree.names[leaf])}<span class="count">{tree.pictures[leaf]:,}</span>'
        f'<span class="examples">{pictures}</span></li>'
    )


def _plain_name(label: int, name: str) -> str:
    return f'<span class="name" title="{escape(name)}">{escape(name)}</span>'


def _branches(tree: ClassTree) -> str:
    """A bracket for every merge, drawn as far from the leaves as its two sides are apart."""
    heights = tree.heights
    # Distances of a collapsed network are all 0.
    scale = 98 / (heights.max() or 1.0)
    across = [100 - float(height) * scale for height in heights]
    down = [0.0] * len(heights)
    for row, leaf in enumerate(tree.order):
        down[leaf] = row + 0.5
    paths = []
    for node, (first, second) in enumerate(tree.merges[:, :2].astype(int), len(tree.labels)):
        down[node] = (down[first] + down[second]) / 2
        paths.append(
            f"M{across[first]:.2f} {down[first]:.3f}H{across[node]:.2f}V{down[second]:.3f}H{across[second]:.2f}"
        )
    root = f"M0 {down[-1]:.3f}H{across[-1]:.2f}"
    return f'<path d="{"".join(paths)}{root}"/>'
