"""A rank of a run is killed, and its launcher starts all of them again: does the run end as if nothing had happened?

    python -m benchmarks.restarts [--ranks 3]

Once under `fastdino train --gpus N`, once under `torchrun --max-restarts=1`. At the end weights, center and moments
must equal those of a run that nobody killed, bit for bit. Exit code 1 if they do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.kills import draw_pictures, equal, settings
from fastdino import TrainConfig
from fastdino.cli import flags

EPOCHS = 8
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--max-restarts=1")
# Seconds for a whole run on a slow machine.
PATIENCE = 300.0


def main() -> int:
    """Train once in peace and once under each launcher, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=3)
    ranks = parser.parse_args().ranks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_pictures(folder / "pictures")
        peaceful, *killed = (
            dataclasses.replace(settings(folder / "pictures", folder / run, EPOCHS), batch_size_per_gpu=2, gpus=ranks)
            for run in ("peaceful", "fastdino train --gpus", "torchrun --max-restarts=1")
        )
        finish(start(peaceful, torchrun=False))
        ends = {}
        for config, torchrun in zip(killed, (False, True), strict=True):
            launcher = start(config, torchrun)
            kill_rank(1, launcher, Path(config.output_dir))
            finish(launcher)
            ends[Path(config.output_dir).name] = equal(folder / "peaceful", Path(config.output_dir))
    print(json.dumps({"ranks": ranks, "equal": ends}, indent=2))
    return 0 if all(ends.values()) else 1


def start(config: TrainConfig, torchrun: bool) -> subprocess.Popen[bytes]:
    """The launcher of all ranks."""
    launcher = [*TORCHRUN, f"--nproc_per_node={config.gpus}"] if torchrun else []
    command = [sys.executable, *launcher, "-m", "fastdino", "train", *flags(config)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def kill_rank(rank: int, launcher: subprocess.Popen[bytes], output: Path) -> None:
    """SIGKILL for one of the launcher's processes as soon as the run has finished an epoch."""
    while not (output / "log.txt").exists() and launcher.poll() is None:
        time.sleep(0.01)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in map(int, children):
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
            os.kill(child, signal.SIGKILL)
            return
    raise SystemExit(f"the launcher has no rank {rank}")


def finish(launcher: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a run. Raises SystemExit if it fails."""
    try:
        code = launcher.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        # It stops its processes.
        launcher.terminate()
        launcher.wait()
        raise SystemExit("a run did not end in time") from None
    if code:
        raise SystemExit("a run failed")


if __name__ == "__main__":
    sys.exit(main())
