from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fastdino.errors import UserError
from fastdino.visualize.comparison.reading import names, read_runs
from tests.fastdino.visualize.comparison.runs import line, original_line, write


def test_a_finished_run(tmp_path: Path) -> None:
    run, _ = read_runs([write(tmp_path / "a", top1=50.0), write(tmp_path / "b", top1=51.0)])
    assert (run.letter, run.name, run.missing) == ("A", "a", [])
    assert run.knn is not None
    assert (run.knn.top1, run.knn.untrained, run.knn.pictures, run.knn.known, run.knn.k) == (50.0, 30.0, 500, True, 20)
    assert run.judgement is not None
    assert run.judgement.tone == "good"


def test_the_originals_log(tmp_path: Path) -> None:
    log = [original_line(epoch) for epoch in range(3)]
    run, _ = read_runs([write(tmp_path / "a", log=log, settings={}), write(tmp_path / "b")])
    assert [one["train_loss"] for one in run.log] == [8.0, 7.9, 7.8]
    assert (run.knn, run.judgement, run.planned, len(run.missing)) == (None, None, None, 2)


def test_an_unfinished_run_has_the_logs_last_figure(tmp_path: Path) -> None:
    log = [line(0, knn_top1=31.0, knn_top1_random_init=30.0), line(1, knn_top1=35.0), line(2)]
    run, _ = read_runs([write(tmp_path / "a", log=log), write(tmp_path / "b")])
    assert run.knn is not None
    assert (run.knn.top1, run.knn.untrained, run.knn.epochs, run.knn.known) == (35.0, 30.0, 2, False)
    assert math.isnan(run.knn.pixels)


def test_results_of_before_the_run_went_on_are_not_its_own(tmp_path: Path) -> None:
    log = [line(epoch, knn_top1=40.0 + epoch) for epoch in range(6)]
    run, _ = read_runs([write(tmp_path / "a", top1=42.0, log=log, results={"epochs": 3}), write(tmp_path / "b")])
    assert run.knn is not None
    assert run.knn.top1 == 45.0
    assert run.missing == ["its results.json is from 3 epochs, where log.txt has 6"]


def test_results_of_a_run_that_was_begun_again_are_not_its_own(tmp_path: Path) -> None:
    run, _ = read_runs([write(tmp_path / "a", top1=42.0, results={"epochs": 20}), write(tmp_path / "b")])
    assert run.knn is None
    assert run.missing == ["its results.json is from 20 epochs, where log.txt has 10"]


@pytest.mark.parametrize("content", ["", "[1]", '{"knn": [1]}', '{"knn": {"knn_top1": "x", "pictures": -1}}', "\xff"])
def test_damaged_files_are_as_good_as_none(tmp_path: Path, content: str) -> None:
    folders = [write(tmp_path / "a", top1=50.0), write(tmp_path / "b", top1=50.0)]
    for name in ("results.json", "config.json"):
        (tmp_path / "a" / name).write_bytes(content.encode("latin-1"))
    run, _ = read_runs(folders)
    assert run.knn is None


def test_names_are_as_short_as_they_can_be() -> None:
    assert names([Path("/x/one"), Path("/x/two")]) == ["one", "two"]
    assert names([Path("/x/1/run"), Path("/x/2/run"), Path("/x/3/b")]) == ["1/run", "2/run", "3/b"]


def test_what_cannot_be_compared_is_said_in_a_sentence(tmp_path: Path) -> None:
    a, empty = write(tmp_path / "a"), write(tmp_path / "empty", log=[])
    (tmp_path / "none").mkdir()
    for folders, words in (
        ([], "two runs or more"),
        ([a], "two runs or more"),
        ([a] * 7, "more than 6 runs"),
        ([a, f"{a}/."], "given twice"),
        ([a, str(tmp_path / "nowhere")], "there is no folder"),
        ([a, f"{a}/log.txt"], "there is no folder"),
        ([a, str(tmp_path / "none")], "has no log.txt"),
        ([a, empty], "no line of a finished epoch"),
    ):
        with pytest.raises(UserError, match=words):
            read_runs(folders)


def test_a_log_that_is_still_written(tmp_path: Path) -> None:
    folders = [write(tmp_path / "a"), write(tmp_path / "b")]
    with (tmp_path / "a" / "log.txt").open("a") as log:
        log.write(json.dumps(line(10))[:40])
    assert len(read_runs(folders)[0].log) == 10
