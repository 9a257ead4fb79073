"""What the folders of runs hold, ours or facebookresearch/dino's."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdino.data.sources.protocol import printable
from fastdino.errors import UserError
from fastdino.train.log import read_log
from fastdino.train.results import NAME as RESULTS
from fastdino.train.sample import PICTURES_MEASURED
from fastdino.visualize.curves import by_epoch
from fastdino.visualize.verdict import KNN_KEY, UNTRAINED_KEY, Health, health, number

# As many curves as can be told apart in one chart.
LETTERS = "ABCDEF"


@dataclass(frozen=True)
class Knn:
    """k-NN accuracies in percent after `epochs` epochs, NaN where one was not measured.

    `pictures` is how many were given a class, assumed where `known` is False. Then `k` and `measured_on`, the
    fingerprint of the pictures, are None.
    """

    top1: float
    untrained: float
    pixels: float
    chance: float
    epochs: int
    pictures: int
    known: bool
    k: int | None = None
    measured_on: str | None = None


@dataclass(frozen=True)
class Run:
    """A run as far as its folder tells of it; what it lacks is empty, and named in words in `missing`."""

    letter: str
    name: str
    folder: Path
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]
    knn: Knn | None
    judgement: Health | None
    missing: Sequence[str]

    @property
    def title(self) -> str:
        """Letter and name."""
        return f"{self.letter} ({self.name})"

    @property
    def planned(self) -> int | None:
        """How many epochs it was to have."""
        return whole(self.config, "epochs")


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs in `folders`, in this order. Raises UserError for what cannot be compared."""
    if len(folders) < 2:
        raise UserError("give the folders of two runs or more: fastdino compare RUN_A RUN_B")
    if len(folders) > len(LETTERS):
        raise UserError(f"more than {len(LETTERS)} runs cannot be told apart in a chart: give fewer")
    paths: list[Path] = []
    for folder in folders:
        path = Path(folder).resolve()
        if path in paths:
            raise UserError(f"{folder} is given twice: a run can only be compared with another one")
        paths.append(path)
    return [
        read_run(letter, name, path, folder)
        for letter, name, path, folder in zip(LETTERS, names(paths), paths, folders, strict=False)
    ]


def read_run(letter: str, name: str, path: Path, given: str) -> Run:
    """The run in `path`, which the user calls `given`. Raises UserError without a finished epoch."""
    log = by_epoch(_lines(path, given))
    if not log:
        raise UserError(f"{given}/log.txt has no line of a finished epoch: wait for the first one")
    config, results = _content(path / "config.json"), _content(path / RESULTS)
    missing = []
    if not config:
        missing.append("no readable config.json, so its settings are not known")
    done = whole(results, "epochs") if results else None
    if not results:
        missing.append(f"no readable {RESULTS}, so its environment and what it was measured on are not known")
    elif done is not None and done != len(log):
        missing.append(f"its {RESULTS} is from {done} epochs, where log.txt has {len(log)}")
        results = {}
    figures = _mapping(results.get("knn"))
    knn = _measured(figures, results, len(log)) if figures else _logged(log)
    return Run(
        letter=letter,
        name=name,
        folder=path,
        config=config,
        log=log,
        environment=_mapping(results.get("environment")),
        knn=knn,
        judgement=_judgement(log, config, figures or None),
        missing=missing,
    )


def names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as few as tell them apart."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        found = [printable(os.fsencode("/".join(path.parts[-count:]))) for path in paths]
        if len(set(found)) == len(found):
            break
    return found


def whole(values: Mapping[str, Any], key: str) -> int | None:
    """`values[key]`, None where that is no number above 0."""
    value = number(values, key)
    return int(value) if math.isfinite(value) and value >= 1 else None


def _lines(path: Path, given: str) -> list[dict[str, Any]]:
    if not path.is_dir():
        raise UserError(f"there is no folder {given}: give folders that `fastdino train` wrote to (its --output_dir)")
    if not (path / "log.txt").is_file():
        raise UserError(f"{given} has no log.txt: give folders that `fastdino train` wrote to (its --output_dir)")
    try:
        return read_log(path / "log.txt")
    except OSError as error:
        raise UserError(f"cannot read {given}/log.txt ({error.strerror}): make it readable") from error


def _content(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _measured(figures: Mapping[str, Any], results: Mapping[str, Any], epochs: int) -> Knn | None:
    """What results.json says of a run with so many epochs."""
    top1, pictures, fingerprint = number(figures, KNN_KEY), whole(figures, "pictures"), results.get("measured_on")
    if not 0 <= top1 <= 100:
        return None
    return Knn(
        top1,
        number(figures, UNTRAINED_KEY),
        number(figures, "knn_top1_pixels"),
        number(figures, "chance"),
        epochs,
        pictures or PICTURES_MEASURED,
        known=pictures is not None,
        k=whole(figures, "k"),
        measured_on=fingerprint if isinstance(fingerprint, str) else None,
    )


def _logged(log: Sequence[Mapping[str, Any]]) -> Knn | None:
    """The last figure in log.txt, which does not tell what it was measured on."""
    measured = [(index, line) for index, line in enumerate(log) if 0 <= number(line, KNN_KEY) <= 100]
    if not measured:
        return None
    index, line = measured[-1]
    untrained = next((value for one in log if math.isfinite(value := number(one, UNTRAINED_KEY))), math.nan)
    pictures = min(whole(line, "pictures") or PICTURES_MEASURED, PICTURES_MEASURED)
    return Knn(number(line, KNN_KEY), untrained, math.nan, math.nan, index + 1, pictures, known=False)


def _judgement(
    log: Sequence[Mapping[str, Any]], config: Mapping[str, Any], figures: Mapping[str, Any] | None
) -> Health | None:
    """As the report judges it; None where the number of prototypes is not known."""
    out_dim = whole(config, "out_dim")
    return health(log, out_dim, figures) if out_dim and out_dim > 1 else None
