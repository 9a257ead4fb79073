"""The map as one HTML file."""

from __future__ import annotations

import base64
from html import escape
from string import Template

import numpy as np

from fastdino.visualize.dendrogram import dendrogram
from fastdino.visualize.map.contents import FeatureMap
from fastdino.visualize.page import array_data, json_data, policy, static

# One script, in this order: a later file uses what an earlier one defines.
SCRIPTS = ("data", "grid", "view", "atlas", "colours", "painter", "gestures", "search", "panel", "main")
EXTENT = 65535  # as in data.js


def render(content: FeatureMap) -> str:
    """The page; whatever names contain, they are text in it."""
    style = static("map/map.css") + static("tree.css")
    script = "\n".join(static(f"map/{name}.js") for name in SCRIPTS)
    return Template(static("map/map.html")).substitute(
        policy=policy(style, script),
        title=escape(content.title),
        summary=escape(_summary(content)),
        style=style,
        script=script,
        colourings=_colourings(content),
        classes=_classes(content),
        data=_data(content),
    )


def _summary(content: FeatureMap) -> str:
    parts = [f"{len(content.names):,} pictures"]
    if content.tree:
        parts.append(f"{len(content.tree.labels):,} classes")
    return " · ".join(parts)


def _colourings(content: FeatureMap) -> str:
    kinds = [("class", "by class")] if content.classes else []
    kinds += [("cluster", "by cluster")] if len(content.clusters) else []
    return "".join(f'<option value="{value}">{words}</option>' for value, words in [*kinds, ("none", "none")])


def _classes(content: FeatureMap) -> str:
    if content.tree is None:
        return ""

    def button(label: int, name: str) -> str:
        return (
            f'<button type="button" data-class="{label}" title="{escape(name)}">'
            f'<span class="name">{escape(name)}</span></button>'
        )

    return (
        '<section aria-labelledby="tree-heading"><h2 id="tree-heading">Tree of classes</h2>'
        '<p class="fine">What is joined far to the right looks alike to the network.</p>'
        f"{dendrogram(content.tree, content.examples, button)}</section>"
    )


def _data(content: FeatureMap) -> str:
    atlas = content.atlas
    about = {
        "names": content.names,
        "classes": content.classes,
        "order": [content.tree.labels[leaf] for leaf in content.tree.order] if content.tree else [],
        "groups": int(content.clusters.max(initial=-1)) + 1,
        "nearest": content.neighbours.shape[1],
        "side": atlas.side,
        "columns": atlas.columns,
    }
    sheets = "".join(
        f'<script type="text/plain" class="sheet">{base64.b64encode(sheet).decode()}</script>\n'
        for sheet in atlas.sheets
    )
    return (
        json_data("about", about)
        + array_data("positions", np.rint(content.positions * EXTENT), "<u2")
        + array_data("labels", content.labels, "<i4")
        + array_data("clusters", content.clusters, "<i4")
        + array_data("neighbours", content.neighbours, "<i4")
        + array_data("slots", atlas.slots, "<i4")
        + sheets
    )
