from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from fastdino.train.guards import Tolerated
from fastdino.train.log import RunLog, read_log


def test_lines_of_epochs_that_are_trained_again_are_replaced(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 0, Tolerated(Console()))
    for epoch in range(3):
        log.epoch({"epoch": epoch, "train_loss": 1.0})
    log.close()
    resumed = RunLog(tmp_path, 1, 10, Tolerated(Console()))
    resumed.epoch({"epoch": 1, "train_loss": 2.0})
    resumed.close()
    assert read_log(tmp_path / "log.txt") == [{"epoch": 0, "train_loss": 1.0}, {"epoch": 1, "train_loss": 2.0}]


def test_what_is_learnt_later_joins_its_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 0, Tolerated(Console()))
    for epoch in range(2):
        log.epoch({"epoch": epoch})
    log.add(0, {"knn_top1": 40.0})
    log.add(7, {"knn_top1": 50.0})
    log.close()
    assert read_log(tmp_path / "log.txt") == [{"epoch": 0, "knn_top1": 40.0}, {"epoch": 1}]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(json.dumps({"epoch": 0}) + '\n{"epoch": 1, "train_l')
    assert read_log(path) == [{"epoch": 0}]
    path.write_bytes(b'\xff\xfe\n[1]\n{"loss": 1}\n{"epoch": 2}\n')
    assert read_log(path) == [{"epoch": 2}]
    assert read_log(tmp_path / "none.txt") == []
