"""The pictures on which the networks of a run are measured."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from fastdino.config import TrainConfig
from fastdino.data.sources import Source, Subset
from fastdino.visualize.neighbours import evenly_spread

# Enough for k-NN to mean something and for a CPU to get through in a minute.
PICTURES_MEASURED = 500
# Of held-out pictures and of those to compare them with.
HELD_OUT_MEASURED = 1000
COMPARED_WITH = 2000
# Fewer of each would leave a picture without neighbours of its own class.
MEASURED_PER_CLASS = 25
LARGEST_BATCH = 128


class Sample(NamedTuple):
    """Pictures `queries` that those of `gallery` name the class of; None for those of `gallery`, each by the others."""

    gallery: Source
    queries: Source | None

    @property
    def sources(self) -> list[Source]:
        """Both, as far as they are there."""
        return [self.gallery] if self.queries is None else [self.gallery, self.queries]


def sample_of(source: Source, held_out: Source | None) -> Sample:
    """Training pictures of `source`, measured leave-one-out, or `held_out` ones to be compared with them."""
    if held_out is None:
        return Sample(Subset(source, measured_indices(source)), None)
    queries = Subset(held_out, measured_indices(held_out, HELD_OUT_MEASURED))
    labels = {queries.label(index) for index in range(len(queries))}
    return Sample(Subset(source, measured_indices(source, COMPARED_WITH, labels)), queries)


def measured_indices(source: Source, most: int = PICTURES_MEASURED, labels: Collection[int] | None = None) -> list[int]:
    """At most `most` pictures spread over the source; where there are many classes, of some of them.

    Of the classes `labels` where they are given and the source has any of them.
    """
    if not source.classes:
        return evenly_spread(len(source), most)
    members: dict[int, list[int]] = {}
    for index in range(len(source)):
        members.setdefault(source.label(index), []).append(index)
    wanted = sorted(members.keys() & set(labels or ())) or sorted(members)
    chosen = [wanted[i] for i in evenly_spread(len(wanted), most // MEASURED_PER_CLASS)]
    share = most // len(chosen)
    return sorted(members[label][i] for label in chosen for i in evenly_spread(len(members[label]), share))


def batch_size(config: TrainConfig) -> int:
    """How many of the pictures a network is given at a time: training has memory for as many."""
    return min(LARGEST_BATCH, config.batch_size_per_gpu)
