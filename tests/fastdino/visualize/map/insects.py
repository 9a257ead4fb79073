"""A map of made-up pictures of three classes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fastdino.visualize.map.atlas import pack
from fastdino.visualize.map.contents import FeatureMap
from fastdino.visualize.tree import ClassTree

CLASSES = ["ant", "bee", "<b>cat</b>"]
EACH = 100
COUNT = len(CLASSES) * EACH
COLOURS = [[200, 30, 30], [30, 160, 30], [30, 30, 220]]


def content() -> FeatureMap:
    """Three classes of one colour each, at three places; a picture's neighbours are the next three of its class."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), EACH)
    middles = np.array([(0.15, 0.15), (0.85, 0.3), (0.4, 0.85)])[labels]
    positions = (middles + generator.uniform(-0.12, 0.12, (COUNT, 2))).astype(np.float32)
    # Alone in the corners of the map and in its middle.
    positions[[0, 1, 150, 250, 2]] = [(0, 0), (1, 1), (1, 0), (0, 1), (0.5, 0.5)]
    thumbnails = np.broadcast_to(np.array(COLOURS, dtype=np.uint8)[labels][:, None, None], (COUNT, 96, 96, 3))
    steps = np.arange(COUNT)[:, None] + np.arange(1, 4)
    neighbours = steps % EACH + labels[:, None] * EACH
    examples = [[Image.new("RGB", (48, 48), tuple(colour))] * 2 for colour in COLOURS]
    merges = np.array([[0, 1, 0.2, 2], [2, 3, 0.7, 3]])
    return FeatureMap(
        title="Map of insects & <others>",
        names=[f"{CLASSES[label]}/picture {i}.jpg" for i, label in enumerate(labels)],
        classes=CLASSES,
        labels=labels,
        positions=positions,
        clusters=(np.arange(COUNT) % 5).astype(np.int32),
        neighbours=neighbours,
        atlas=pack(thumbnails, positions),
        tree=ClassTree([0, 1, 2], CLASSES, [EACH] * 3, [[0, 1]] * 3, merges, [2, 0, 1]),
        examples=examples,
    )
