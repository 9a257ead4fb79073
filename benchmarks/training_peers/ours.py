"""`fastdino train`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.training_peers import RUN, Losses


def losses(folder: Path) -> Losses:
    """Those of a run: the first step's is in TensorBoard's files alone."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from fastdino.train.log import read_log

    board = EventAccumulator(str(folder / RUN / "tensorboard"))
    board.Reload()
    return Losses(board.Scalars("step/loss")[0].value, read_log(folder / RUN / "log.txt")[-1]["train_loss"])


def main() -> int:
    """Arguments: the file of the steps, the flags."""
    from benchmarks.training_peers.recording import record_steps
    from fastdino import cli

    record_steps(sys.argv[1])
    return cli.main(["train", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
