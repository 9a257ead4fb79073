from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdino.data.sources import FolderSource
from fastdino.train.results import NAME, fingerprint, training_seconds, write_results
from fastdino.train.sample import Sample, sample_of
from fastdino.visualize.verdict import Health


def pictures(root: Path, *names: str) -> FolderSource:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(root / name)
    return FolderSource(str(root))


def test_what_was_measured_can_be_read_back(tmp_path: Path) -> None:
    sample = sample_of(pictures(tmp_path / "set", "a/1.png", "b/1.png"), None)
    knn = {"k": 20, "knn_top1": 50.0, "by_k": {20: (50.0, 75.0)}, "pictures": 2}
    log = [{"epoch": 0, "pictures": 100, "images_per_second": 20.0}]
    write_results(tmp_path, log, sample, knn, Health("good", ["It worked."]), {"torch": "2"})
    assert json.loads((tmp_path / NAME).read_text()) == {
        "epochs": 1,
        "knn": {"k": 20, "knn_top1": 50.0, "by_k": {"20": [50.0, 75.0]}, "pictures": 2},
        "measured_on": fingerprint(sample),
        "held_out": False,
        "verdict": ["It worked."],
        "tone": "good",
        "seconds": 5.0,
        "environment": {"torch": "2"},
    }


def test_pictures_are_known_by_names_and_classes_not_by_place(tmp_path: Path) -> None:
    names = ("a/1.png", "a/2.png", "b/1.png")
    here, there = (Sample(pictures(tmp_path / place, *names), None) for place in ("here", "there"))
    fewer = Sample(pictures(tmp_path / "fewer", *names[1:]), None)
    assert fingerprint(here) == fingerprint(there)
    assert len({fingerprint(here), fingerprint(fewer), fingerprint(Sample(here.gallery, fewer.gallery))}) == 3


@pytest.mark.parametrize(
    "log", [[], [{"epoch": 0, "train_loss": 8.0}], [{"pictures": 8, "images_per_second": 0.0}]], ids=str
)
def test_no_time_without_speeds(log: list[dict[str, float]]) -> None:
    assert training_seconds(log) is None
