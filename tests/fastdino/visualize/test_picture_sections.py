from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fastdino.visualize.neighbours import Shown
from fastdino.visualize.picture_sections import (
    CLASSES_WITH_EXAMPLES,
    CLASSES_WITH_ONE,
    map_section,
    neighbour_section,
    tree_section,
)
from fastdino.visualize.tree import ClassTree
from tests.fastdino.visualize.map.insects import content

GREY = Image.new("RGB", (8, 8), "grey")


def chain(classes: int) -> ClassTree:
    """Each class joins those before it."""
    merges = [[0.0, 1.0, 0.1, 2.0]]
    merges += [[float(classes + i - 1), i + 1.0, 0.1 + i / classes, i + 2.0] for i in range(1, classes - 1)]
    names = [f"class {i}" for i in range(classes)]
    order = list(range(classes))
    return ClassTree(order, names, [1] * classes, [[0]] * classes, np.array(merges), order)


@pytest.mark.parametrize(
    ("classes", "shown"),
    [(CLASSES_WITH_EXAMPLES, 3), (CLASSES_WITH_EXAMPLES + 1, 1), (CLASSES_WITH_ONE, 1), (CLASSES_WITH_ONE + 1, 0)],
)
def test_the_more_classes_the_fewer_examples(classes: int, shown: int) -> None:
    space = dataclasses.replace(content(), tree=chain(classes), examples=[[GREY] * 5] * classes)
    section = tree_section(space)
    assert section is not None
    assert section.content.count("<li>") == classes
    assert section.content.count("<img") == shown * classes


def test_without_a_map_or_classes_there_is_nothing_to_show() -> None:
    assert map_section(None, 1.0) is None
    assert tree_section(None) is None
    assert tree_section(dataclasses.replace(content(), tree=None)) is None


def test_the_map_leads_to_the_whole_one() -> None:
    section = map_section(content(), 1.0)
    assert section is not None
    assert '<a href="map.html"><img' in section.content
    assert "300 " in section.why


@pytest.mark.parametrize(("on_map", "links"), [(True, 2), (False, 0)])
def test_neighbours_lead_to_the_map_where_there_is_one(on_map: bool, links: int) -> None:
    row = (Shown(GREY, "ant", 7), [Shown(GREY, "<bee>", 3), Shown(GREY, "ant")])
    section = neighbour_section([row], 1.0, on_map)
    assert section is not None
    assert section.content.count("<a href=") == links
    assert ('href="map.html#picture=3"' in section.content) == on_map
    assert "≠ &lt;bee&gt;" in section.content
    assert "≠ ant" not in section.content
