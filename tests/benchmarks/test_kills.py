from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_run_killed_three_times_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """In a process of its own: what forks must not have threads, as a process with tests in it has."""
    command = [sys.executable, "benchmarks/kills.py", "--kills", "3", "--epochs", "4"]
    command += ["--output", str(tmp_path / "kills.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    figures = json.loads((tmp_path / "kills.json").read_text())
    assert (figures["kills"], figures["unreadable"], figures["equal"]) == (3, 0, True)
