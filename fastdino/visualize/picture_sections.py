"""The sections of the report page that show pictures: neighbours, attention, the map and the tree."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from fastdino.visualize.dendrogram import dendrogram
from fastdino.visualize.map.contents import FeatureMap
from fastdino.visualize.map.overview import overview
from fastdino.visualize.neighbours import NeighbourRow, Shown
from fastdino.visualize.sections import MOST_PICTURES, MOST_ROWS, Section, picture

MAP = "map.html"
# Width to height of what needs the whole width of the page.
WIDE = 3.2
# Examples of more classes than these would make the page too large to be mailed.
CLASSES_WITH_EXAMPLES = 60
CLASSES_WITH_ONE = 200


def neighbour_section(rows: Sequence[NeighbourRow], scale: float, on_map: bool = False) -> Section | None:
    """A picture and its nearest ones, row by row; with `on_map` each leads to its place there."""
    if not rows:
        return None
    drawn = []
    for sample, (query, neighbours) in enumerate(rows[:MOST_ROWS], 1):
        figures = [_figure(query, f"Picture {sample}", query.kind, on_map, scale)]
        figures += [
            _figure(one, f"Neighbour {rank} of picture {sample}", query.kind, on_map, scale)
            for rank, one in enumerate(neighbours, 1)
        ]
        # On a phone they stand in two lines.
        columns = f"--near:{max(len(neighbours), 1)};--narrow:{max((len(neighbours) + 1) // 2, 1)}"
        drawn.append(f'<div class="row" style="{columns}">{"".join(figures)}</div>')
    why = "The framed picture on the left, then those that the network finds most alike, the nearest first."
    if any(one.kind != query.kind for query, neighbours in rows for one in neighbours):
        why += " ≠ stands before the name of another class."
    if on_map:
        why += f" Each leads to its own neighbours on the map, the file {MAP} beside this page."
    return Section("neighbours", "Nearest pictures", why, f'<div class="card near">{"".join(drawn)}</div>')


def _figure(one: Shown, alt: str, wanted: str, on_map: bool, scale: float) -> str:
    drawn = picture(one.picture, f"{alt}: {one.kind}" if one.kind else alt, 144 * scale)
    if on_map and one.place is not None:
        drawn = f'<a href="{MAP}#picture={one.place}">{drawn}</a>'
    if not one.kind:
        return f"<figure>{drawn}</figure>"
    differs = one.kind != wanted
    words = f"≠ {one.kind}" if differs else one.kind
    kind = ' class="other"' if differs else ""
    return f'<figure>{drawn}<figcaption{kind} title="{escape(one.kind)}">{escape(words)}</figcaption></figure>'


def attention_section(attention: Sequence[tuple[str, Image.Image]], scale: float) -> Section | None:
    """Captioned pictures, wide ones over the whole width."""
    why = (
        "Bright is where the network looks when it sums up a picture (dark is ignored): after good "
        "training, at objects rather than at the background."
    )
    return _looks(attention, "Attention map", why, scale)


def contribution_section(contributions: Sequence[tuple[str, Image.Image]], scale: float) -> Section | None:
    """The same for a network without attention."""
    why = (
        "This network has no attention. What it says of a picture is a mean over places, and bright are those places "
        "that contribute most to it: after good training, objects and telling textures rather than the background."
    )
    return _looks(contributions, "Contribution map", why, scale)


def _looks(captioned: Sequence[tuple[str, Image.Image]], kind: str, why: str, scale: float) -> Section | None:
    if not captioned:
        return None
    figures = []
    for caption, image in captioned[:MOST_PICTURES]:
        wide = image.width > WIDE * image.height
        drawn = picture(image, f"{kind}: {caption}", (1080 if wide else 640) * scale)
        style = ' class="wide"' if wide else ""
        figures.append(f"<figure{style}>{drawn}<figcaption>{escape(caption)}</figcaption></figure>")
    return Section("attention", "Where it looks", why, f'<div class="card shots">{"".join(figures)}</div>')


def map_section(space: FeatureMap | None, scale: float) -> Section | None:
    """A picture of the map, which leads to the whole one."""
    if space is None:
        return None
    drawn = picture(overview(space), f"Map of {len(space.names):,} pictures: open it", 1080 * scale)
    why = (
        "Pictures that the network finds alike lie close together; here stand as many as have room. All "
        f"{len(space.names):,} are on the interactive map, the file {MAP} beside this page: zoom, search, and see the "
        "nearest pictures of any."
    )
    content = f'<div class="card space"><a href="{MAP}">{drawn}</a></div>'
    return Section("map", "What it finds alike", why, content)


def tree_section(space: FeatureMap | None) -> Section | None:
    """The tree of classes, with fewer pictures where there are many."""
    if space is None or space.tree is None:
        return None
    classes = len(space.tree.labels)
    most = 3 if classes <= CLASSES_WITH_EXAMPLES else 1 if classes <= CLASSES_WITH_ONE else 0
    examples = [pictures[:most] for pictures in space.examples]
    why = (
        "Classes that the network finds alike, joined from the leaves to the root: the further right two are joined, "
        "the more alike. It was told no class; the names were added afterwards."
    )
    return Section("tree", "The tree of classes", why, f'<div class="card">{dendrogram(space.tree, examples)}</div>')
