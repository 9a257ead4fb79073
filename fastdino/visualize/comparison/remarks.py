"""What one should know before believing a comparison of runs: how far each came, what went wrong, what differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fastdino.visualize.comparison.differences import Values
from fastdino.visualize.comparison.reading import Run
from fastdino.visualize.verdict import KNN_KEY, number

# More would be a table, which the page has.
MOST_NAMED = 3


def remarks(runs: Sequence[Run], alike: Sequence[Run], differing: Sequence[Values], *, clear: bool) -> list[str]:
    """Sentences for the case that one run is better than the others by more than chance, or is not.

    `alike` are those that were measured on the same pictures, `differing` the settings that may have made the
    difference.
    """
    return [*_went_wrong(runs), *_lengths(runs, alike), *_missing(runs), *_why(runs, differing, clear)]


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _went_wrong(runs: Sequence[Run]) -> list[str]:
    return [
        f"Of {run.letter} alone: {run.judgement.sentences[0]}"
        for run in runs
        if run.judgement is not None and run.judgement.tone == "bad"
    ]


def _lengths(runs: Sequence[Run], alike: Sequence[Run]) -> list[str]:
    """Runs that still go on, and the accuracies after equally many epochs where the runs have had other numbers."""
    unfinished = [
        f"{run.letter} has done {len(run.log)} of its {run.planned} epochs"
        for run in runs
        if run.planned is not None and len(run.log) < run.planned
    ]
    sentences = [f"{joined(unfinished)}, so this is no final word."] if unfinished else []
    if len({len(run.log) for run in runs}) == 1:
        return sentences
    measured = [_by_epochs(run) for run in alike]
    shared = set.intersection(*(set(one) for one in measured)) if measured else set()
    if shared and len({len(run.log) for run in alike}) > 1:
        last = max(shared)
        figures = ", ".join(f"{run.letter} {one[last]:.1f} %" for run, one in zip(alike, measured, strict=True))
        return [
            *sentences,
            f"After equally many epochs ({last}) nearest neighbours named the right class for {figures}.",
        ]
    lengths = ", ".join(f"{run.letter} {len(run.log)}" for run in runs)
    return [*sentences, f"They were trained for other numbers of epochs: {lengths}."]


def _by_epochs(run: Run) -> Mapping[int, float]:
    """k-NN accuracy by the number of epochs after which it was measured."""
    return {int(line["epoch"]) + 1: value for line in run.log if math.isfinite(value := number(line, KNN_KEY))}


def _missing(runs: Sequence[Run]) -> list[str]:
    return [f"{run.letter} has {'; '.join(run.missing)}." for run in runs if run.missing]


def _why(runs: Sequence[Run], differing: Sequence[Values], clear: bool) -> list[str]:
    """The settings that may have made the difference."""
    known = [run for run in runs if run.config]
    if len(known) < len(runs):
        return []
    if not differing:
        same = "No setting that matters for training differs"
        return [
            f"{same}: what is left is the machine, the versions and the pictures themselves." if clear else f"{same}."
        ]
    if [row.name for row in differing] == ["seed"]:
        return ["They differ in the seed alone: such a difference is what the same settings give by chance."]
    named = [
        f"{row.name} ({', '.join(f'{run.letter} {cell}' for run, cell in zip(runs, row.cells, strict=True))})"
        for row in differing[:MOST_NAMED]
    ]
    if len(differing) == 1:
        probable = ": probably what made the difference, though another --seed moves such figures, too" if clear else ""
        return [f"They differ in one setting, {named[0]}{probable}."]
    listed = joined(named) if len(differing) <= MOST_NAMED else f"{', '.join(named)} and others"
    which = " Which of them made the difference only runs tell that change one of them." if clear else ""
    return [f"They differ in {len(differing)} settings: {listed}.{which}"]
