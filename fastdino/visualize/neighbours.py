"""The nearest pictures in feature space: what the network takes for alike, seen with one's own eyes."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from fastdino.data.reading import read_image
from fastdino.data.sources import Source
from fastdino.evaluate.cuts import centre_crop
from fastdino.evaluate.features import Features
from fastdino.evaluate.neighbours import nearest


@dataclass(frozen=True)
class Shown:
    """A picture with its class, empty for none, and its `place` among the gallery's features and the queries' after
    them, None where it has none.
    """

    picture: Image.Image
    kind: str = ""
    place: int | None = None


NeighbourRow = tuple[Shown, list[Shown]]


def neighbour_rows(
    gallery: Source,
    gallery_features: Features,
    queries: Source | None = None,
    query_features: Features | None = None,
    *,
    rows: int = 6,
    neighbours: int = 6,
    side: int = 112,
) -> list[NeighbourRow]:
    """Pictures spread evenly over the queries, each with its nearest ones in the gallery, the nearest first.

    Without queries the gallery's own pictures are used, each compared with all the others. Pictures are the
    middle squares that the network saw, `side` pixels wide. Fewer rows or neighbours where there are not as
    many.
    """
    leave_one_out = queries is None or query_features is None
    source = gallery if queries is None else queries
    asking = gallery_features if query_features is None else query_features
    wanted = evenly_spread(len(asking.indices), rows)
    # Leave-one-out asks for one more, as a picture is among its own nearest.
    k = min(neighbours + leave_one_out, len(gallery_features.indices))
    result: list[NeighbourRow] = []
    for piece in nearest(gallery_features.features, asking.features[wanted], k):
        for row, found in zip(wanted[piece.rows], piece.indices.tolist(), strict=True):
            near = [index for index in found if not (leave_one_out and index == row)][:neighbours]
            pictures = [_shown(gallery, gallery_features, index, index, side) for index in near]
            place = row if leave_one_out else len(gallery_features.indices) + row
            result.append((_shown(source, asking, row, place, side), pictures))
    return result


def evenly_spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers 0 .. count - 1, evenly apart and ascending."""
    wanted = min(count, wanted)
    return [(2 * index + 1) * count // (2 * wanted) for index in range(wanted)]


def _shown(source: Source, features: Features, row: int, place: int, side: int) -> Shown:
    index = int(features.indices[row])
    label = source.label(index)
    kind = source.classes[label] if 0 <= label < len(source.classes) else ""
    return Shown(centre_crop(read_image(source.read(index)), side), kind, place)
