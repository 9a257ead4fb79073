from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastdino import cli, implementation
from fastdino.doctor import run as module
from fastdino.doctor.findings import Finding
from fastdino.implementation import OPERATIONS, choose

GPU = torch.device("cuda")
WHY_INTERPRETED = module._why_interpreted
SOUND = [Finding(operation, f"{operation} kernel", 0.5, 1e-4, 10**8) for operation in OPERATIONS]
OFF = Finding("loss", "dino_loss", 7.0, fault="dino_loss is off: its error is 7 times what is allowed")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A GPU by name, on which nothing runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    for where in (implementation, module):
        monkeypatch.setattr(where, "why_no_triton", lambda device: "")
    monkeypatch.setattr(module, "_why_interpreted", lambda: "")
    monkeypatch.setattr(module, "environment", lambda device: {"GPU": "A GPU"})
    monkeypatch.setattr(module, "copy_bandwidth", lambda device: 2e12)
    choose.cache_clear()
    yield
    choose.cache_clear()


def test_without_a_gpu_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No kernel was examined: there is no GPU." in said
    assert f"torch {torch.__version__.split('+')[0]}" in said and "loss torch (the device is a CPU)" in said


def test_json_is_all_that_is_printed_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["examined"] is False and report["environment"]["GPU"] == "none"
    assert report["choices"].keys() == set(OPERATIONS)


def test_sound_kernels_are_shown_with_their_share_of_a_copy(
    gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "examine", lambda operation: [f for f in SOUND if f.operation == operation])
    monkeypatch.setenv("COLUMNS", "150")
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    # 100 MB in 100 microseconds, half of what a copy reaches.
    assert said.count("100 µs") == said.count("1,000") == said.count("50%") == said.count("sound") == len(SOUND)
    assert "triton (the fastest on this GPU)" in said


def test_what_is_not_sound_is_switched_off_until_it_is(
    gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "examine", lambda operation: [OFF] if operation == "loss" else [])
    assert cli.main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "torch (fastdino doctor found that dino_loss is off" in " ".join(captured.out.split())
    assert captured.err.startswith("fastdino: dino_loss is off: its error is 7 times what is allowed. ")
    assert choose("loss", "auto", GPU).name == "torch" and choose("update", "auto", GPU).name == "triton"
    monkeypatch.setattr(module, "examine", lambda operation: [f for f in SOUND if f.operation == operation])
    assert cli.main(["doctor"]) == 0
    assert choose("loss", "auto", GPU).name == "triton"


def test_what_cannot_be_remembered_is_said(
    gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(module, "examine", lambda operation: [OFF] if operation == "loss" else [])
    assert cli.main(["doctor"]) == 1
    assert "cannot be remembered" in (said := capsys.readouterr().err) and "--implementation torch" in said


def test_the_interpreter_gives_no_verdict_about_a_gpu(
    gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    monkeypatch.setattr(module, "_why_interpreted", WHY_INTERPRETED)
    monkeypatch.setattr(module, "examine", None)
    assert cli.main(["doctor"]) == 0
    assert "TRITON_INTERPRET is set" in capsys.readouterr().out


def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Runs `script` instead of Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


LINE = json.dumps({"operation": "loss", "kernel": "dino_loss", "error": 0.5})


def test_a_process_without_a_word_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, "exit 0")
    (finding,) = module.examine("loss")
    assert finding.fault == "the examination of loss found nothing out"


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("echo 'an illegal memory access' >&2; exit 3", "ended with code 3: an illegal memory access"),
        ("kill -SEGV $$", "ended with code -11: "),
        ("exec sleep 60", "did not end within 1 s"),
    ],
)
def test_a_process_that_dies_or_hangs_leaves_what_it_had_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ending: str
) -> None:
    interpreter(tmp_path, monkeypatch, f"echo noise; echo '{LINE}'; printf '{{\"operation\": \"lo'; {script}")
    first, last = module.examine("loss", time_limit=1)
    assert first == Finding("loss", "dino_loss", 0.5)
    assert last.fault == f"the examination of loss {ending}"


def test_an_operation_is_examined_in_a_process_of_its_own() -> None:
    pytest.importorskip("triton", reason="Triton is made for Linux only")
    root = Path(__file__).parents[3]
    link = "import sys, fastdino; fastdino.__path__.append(sys.argv.pop(1));"
    code = link + "sys.argv[0] = 'examine'; from fastdino.doctor.examine import main; main()"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    process = subprocess.run(
        [sys.executable, "-c", code, str(root), "normalisation"], env=environment, capture_output=True, text=True
    )
    (finding,) = module._parsed(process.stdout)
    # The interpreter is not corrected there: it cuts bfloat16 off.
    assert finding.operation == "normalisation" and finding.fault.startswith("normalize to bfloat16 is off")
