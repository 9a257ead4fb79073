from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastdino.config import DemoConfig
from fastdino.demo import run as demo_run
from fastdino.demo.preset import demo_preset
from fastdino.train.validate import validated
from tests.fastdino.demo.short import shorten


def test_preset_is_valid_as_it_is() -> None:
    preset = demo_preset("pictures", "out", 3, 2)
    assert validated(preset) == (preset, [])
    assert (preset.data_path, preset.output_dir, preset.seed, preset.num_workers) == ("pictures", "out", 3, 2)


def test_ends_with_sentences_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole demo, with few pictures and one epoch."""
    shorten(monkeypatch, epochs=1)
    output = tmp_path / "demo"
    first = demo_run.run(DemoConfig(output_dir=str(output), seed=0, num_workers=0))
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1].endswith(str(output / "report.html"))
    assert f"{first['knn_top1']:.0f} times in 100" in lines[-4]
    assert "fastdino train --data_path" in lines[-2]
    written = json.loads((output / "metrics.json").read_text())
    assert written == first
    assert {"knn_top1", "knn_top1_random_init", "knn_top1_pixels", "seconds"} <= written.keys()
    page = (output / "report.html").read_text()
    assert f"{first['knn_top1']:.1f}" in page

    again = demo_run.run(DemoConfig(output_dir=str(tmp_path / "again"), seed=0, num_workers=1))
    other = demo_run.run(DemoConfig(output_dir=str(tmp_path / "other"), seed=1, num_workers=0))
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert {**other, "seconds": 0} != {**first, "seconds": 0}
