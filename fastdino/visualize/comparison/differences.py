"""Settings and environments of runs that are not the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastdino.visualize.charts import short
from fastdino.visualize.comparison.reading import Run

UNKNOWN = "–"
# Where a run lies, how often it saves and what feeds it do not change what it learns.
WITHOUT_EFFECT = {
    "output_dir",
    "saveckp_freq",
    "save_minutes",
    "save_steps",
    "keep_checkpoints",
    "num_workers",
    "dist_url",
    "dist_timeout",
    "local_rank",
}


class Values(NamedTuple):
    """A name and what it stands for in each run."""

    name: str
    cells: list[str]


def settings(runs: Sequence[Run]) -> tuple[list[Values], list[Values]]:
    """Those that differ, and those that are the same in all runs whose settings are known."""
    differing, same = _sorted_out([run.config for run in runs])
    return [row for row in differing if row.name != "output_dir"], same


def environments(runs: Sequence[Run]) -> tuple[list[Values], list[Values]]:
    """What differs, and what is the same in all runs whose environment is known."""
    return _sorted_out([run.environment for run in runs])


def effective(runs: Sequence[Run]) -> list[Values]:
    """The settings that differ and may change what is learnt."""
    return [row for row in settings(runs)[0] if row.name not in WITHOUT_EFFECT]


def in_words(value: Any) -> str:
    """A setting as text that every terminal can show."""
    if isinstance(value, float):
        return short(value)
    text = ", ".join(map(in_words, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


def _sorted_out(tables: Sequence[Mapping[str, Any]]) -> tuple[list[Values], list[Values]]:
    names = list(dict.fromkeys(name for table in tables for name in table))
    differing: list[Values] = []
    same: list[Values] = []
    for name in names:
        # Other versions have other settings: one that a run lacks is not a difference.
        values = [table[name] for table in tables if name in table]
        cells = [in_words(table[name]) if name in table else UNKNOWN for table in tables]
        (same if all(value == values[0] for value in values) else differing).append(Values(in_words(name), cells))
    return differing, same
