"""The tree of classes: which of them look alike to a network, and which pairs of those, up to one root.

Classes are joined bottom-up (average linkage, as biology's UPGMA) by the cosine distance of their mean features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn import functional as F

from fastdino.evaluate.neighbours import unit_length

# Turning branches so that like leaves are neighbours takes a time that grows with the cube of the leaves: seconds here.
MOST_ORDERED = 500


@dataclass(frozen=True)
class ClassTree:
    """`labels` (n,) are the classes that have pictures, with `names`, numbers of `pictures` and up to a few `examples`
    (rows of the features, the most typical first).

    `merges` (n - 1, 4) is SciPy's linkage matrix over positions in `labels`: two children, distance, leaves below.
    `order` are those positions from the top of a drawing to its bottom.
    """

    labels: list[int]
    names: list[str]
    pictures: list[int]
    examples: list[list[int]]
    merges: npt.NDArray[np.float64]
    order: list[int]

    @property
    def heights(self) -> npt.NDArray[np.float64]:
        """Distance (2n - 1,) at which each node was made: 0 for the leaves, then in the order of `merges`."""
        return np.concatenate([np.zeros(len(self.labels)), self.merges[:, 2]])

    def closest(self) -> tuple[str, str]:
        """The two classes that are most alike."""
        first, second = self.merges[0, :2].astype(int)
        return self.names[first], self.names[second]


def class_tree(features: Tensor, labels: Tensor, classes: Sequence[str], examples: int = 3) -> ClassTree | None:
    """The tree of the classes in `labels` (n,), -1 for none, from `features` (n, D); None with fewer than two classes.

    Raises UserError for features that are not finite.
    """
    present = sorted(set(labels.tolist()) - {-1})
    if len(present) < 2:
        return None
    unit = unit_length(features)
    centroids, pictures, typical = [], [], []
    for label in present:
        rows = (labels == label).nonzero()[:, 0]
        centroid = F.normalize(unit[rows].mean(dim=0), dim=0)
        nearest = (unit[rows] @ centroid).topk(min(examples, len(rows))).indices
        centroids.append(centroid)
        pictures.append(len(rows))
        typical.append(rows[nearest].tolist())
    # Of vectors of length 1, half the squared distance is the cosine distance, and it is never NaN.
    distances = pdist(torch.stack(centroids).double().numpy(), "sqeuclidean") / 2
    merges = linkage(distances, "average")
    if len(present) <= MOST_ORDERED:
        merges = optimal_leaf_ordering(merges, distances)
    names = [classes[label] for label in present]
    return ClassTree(present, names, pictures, typical, merges, leaves_list(merges).tolist())


def newick(tree: ClassTree) -> str:
    """The tree in the format of biology's programs; two leaves are as far apart along it as where they were joined."""
    nodes = ["'" + name.replace("'", "''") + "'" for name in tree.names]
    heights = tree.heights
    for first, second, height, _ in tree.merges:
        branches = [f"{nodes[child]}:{(height - heights[child]) / 2:.6g}" for child in (int(first), int(second))]
        nodes.append(f"({','.join(branches)})")
    return nodes[-1] + ";\n"


def tree_json(tree: ClassTree) -> str:
    """The tree as JSON: `classes` with names and numbers of pictures, and `merges` of two nodes each.

    Nodes are numbered: first the classes, then the merges, in their order.
    """
    classes = [{"name": name, "pictures": count} for name, count in zip(tree.names, tree.pictures, strict=True)]
    merges = [
        {"children": [int(first), int(second)], "distance": float(height)} for first, second, height, _ in tree.merges
    ]
    return json.dumps({"classes": classes, "merges": merges}, indent=2) + "\n"


WRITERS = {".nwk": newick, ".json": tree_json}
