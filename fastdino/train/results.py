"""results.json: what was measured of a finished run, for programs and for `fastdino compare`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastdino.files import write_atomically
from fastdino.train.sample import Sample
from fastdino.visualize.verdict import Health, number

NAME = "results.json"


def write_results(
    output_dir: Path,
    log: Sequence[Mapping[str, Any]],
    sample: Sample,
    knn: Mapping[str, Any] | None,
    judgement: Health,
    environment: Mapping[str, str],
) -> None:
    """Write results.json into `output_dir`, whole or not at all. Raises OSError where it cannot.

    `knn` are the figures of the report, None without classes; `sample` the pictures that they were measured on.
    """
    results = {
        "epochs": len(log),
        "knn": knn,
        "measured_on": fingerprint(sample),
        "held_out": sample.queries is not None,
        "verdict": judgement.sentences,
        "tone": judgement.tone,
        "seconds": training_seconds(log),
        "environment": environment,
    }
    write_atomically(output_dir / NAME, json.dumps(results, indent=2) + "\n")


def fingerprint(sample: Sample) -> str:
    """Changes with the names and the classes of the pictures, wherever they lie."""
    digest = hashlib.sha256()
    for source in sample.sources:
        digest.update(b"source")
        for index in range(len(source)):
            label = source.label(index)
            of_class = source.classes[label] if 0 <= label < len(source.classes) else ""
            digest.update(repr((source.name(index), of_class)).encode())
    return digest.hexdigest()


def training_seconds(log: Sequence[Mapping[str, Any]]) -> float | None:
    """How long the epochs took, by their speed; None where not every line of log.txt has it."""
    seconds = [number(line, "pictures") / (number(line, "images_per_second") or math.nan) for line in log]
    total = sum(seconds)
    return total if log and math.isfinite(total) else None
