"""From features to places on a plane, and to groups of like pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from fastdino.evaluate.neighbours import unit_length

# What is beyond the first 50 directions is mostly noise, and neighbours are found faster in few.
DIRECTIONS = 50
PERPLEXITY = 30

Floats = npt.NDArray[np.float32]


def principal_directions(features: Tensor, seed: int) -> Floats:
    """Features (n, D) of length 1 in their first 50 principal directions (n, at most 50).

    Raises UserError for features that are not finite.
    """
    unit = unit_length(features.float()).numpy()
    if len(unit) == 1:
        return np.zeros((1, 1), dtype=np.float32)  # nothing varies
    directions = min(DIRECTIONS, *unit.shape)
    reduced: Floats = PCA(directions, random_state=seed).fit_transform(unit)
    return reduced


def positions(reduced: Floats, seed: int) -> Floats:
    """Places (n, 2) in the unit square for what `principal_directions` returns: like pictures lie close together.

    By t-SNE (van der Maaten & Hinton 2008). The longer side fills 0 .. 1.
    """
    count = len(reduced)
    if count <= 3:
        # Too few for neighbourhoods; their first direction says it all.
        placed = np.column_stack([reduced[:, 0], np.zeros(count)])
    else:
        method = TSNE(perplexity=min(PERPLEXITY, (count - 1) / 3), init="pca", random_state=seed)
        placed = method.fit_transform(reduced)
    placed = placed - placed.min(axis=0)
    extent = float(placed.max())
    return (placed / extent if extent > 0 else placed + 0.5).astype(np.float32)


def clusters(reduced: Floats, count: int, seed: int) -> npt.NDArray[np.int32]:
    """The number (n,) of the group of like pictures that each is in, by k-means; the largest group is 0.

    At most `count` groups; fewer where there are not as many different pictures.
    """
    distinct = len(np.unique(reduced, axis=0))
    found = MiniBatchKMeans(min(count, distinct), n_init=3, random_state=seed).fit_predict(reduced)
    _, numbers, sizes = np.unique(found, return_inverse=True, return_counts=True)
    ranks = np.empty(len(sizes), dtype=np.int32)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return ranks[numbers]
