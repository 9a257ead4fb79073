"""From features to places on a plane, and to groups of like pictures."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from fastdino.errors import UserError
from fastdino.evaluate.neighbours import unit_length

# What is beyond the first 50 directions is mostly noise, and both methods look for neighbours faster in few.
DIRECTIONS = 50
PERPLEXITY = 30
UMAP_NEIGHBOURS = 15

Floats = npt.NDArray[np.float32]


def check_layout(method: str) -> None:
    """Raise UserError if the method's package is missing: better before the features are computed than after."""
    if method == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError("--layout umap takes umap-learn: pip install 'fastdino[map]', or leave --layout out")


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


def positions(reduced: Floats, method: str, seed: int) -> Floats:
    """Places (n, 2) in the unit square for what `principal_directions` returns: like pictures lie close together.

    `method` is tsne (van der Maaten & Hinton 2008) or umap (McInnes et al. 2018). The longer side fills 0 .. 1.
    """
    count = len(reduced)
    if count <= 3:
        # Too few for neighbourhoods; their first direction says it all.
        placed = np.column_stack([reduced[:, 0], np.zeros(count)])
    else:
        placed = _method(method, count, seed).fit_transform(reduced)
    placed = placed - placed.min(axis=0)
    extent = float(placed.max())
    return (placed / extent if extent > 0 else placed + 0.5).astype(np.float32)


def _method(method: str, count: int, seed: int) -> Any:
    if method == "umap":
        from umap import UMAP

        # A spectral start takes more pictures than that.
        init = "random" if count <= UMAP_NEIGHBOURS else "spectral"
        return UMAP(n_neighbors=min(UMAP_NEIGHBOURS, count - 1), init=init, random_state=seed)
    return TSNE(perplexity=min(PERPLEXITY, (count - 1) / 3), init="pca", random_state=seed)


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
