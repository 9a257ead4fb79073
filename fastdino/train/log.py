"""What a run writes about itself while it trains: `log.txt` (a JSON line an epoch) and TensorBoard's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fastdino.files import write_atomically
from fastdino.train.guards import Tolerated

BOARD = "tensorboard/"


class RunLog:
    """Lines of finished epochs. Those of epochs that are trained again after an interruption are replaced.

    With `writing` False they are kept in memory only: of several processes one writes. What cannot be written is left
    to `tolerated`, and comes with the next line.
    """

    def __init__(
        self, output_dir: Path, start_epoch: int, start_step: int, tolerated: Tolerated, writing: bool = True
    ) -> None:
        self.path = output_dir / "log.txt"
        self.lines = [line for line in read_log(self.path) if line["epoch"] < start_epoch]
        self._tolerated = tolerated
        self._board = SummaryWriter(str(output_dir / "tensorboard"), purge_step=start_step) if writing else None

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Curves within an epoch, for TensorBoard alone."""
        if self._board is None:
            return
        with self._tolerated.writing(BOARD):
            for name, value in values.items():
                self._board.add_scalar(f"step/{name}", value, step)

    def epoch(self, line: dict[str, Any]) -> None:
        """Add an epoch's line; the file is replaced whole, so that it never ends in half a line."""
        self.lines.append(line)
        self._write(line["epoch"], line)

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Add what was learnt about an epoch after its line was written."""
        for line in self.lines:
            if line["epoch"] == epoch:
                line.update(values)
        self._write(epoch, values)

    def close(self) -> None:
        """Flush TensorBoard's files."""
        if self._board is not None:
            with self._tolerated.writing(BOARD):
                self._board.close()

    def _write(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Write all lines, and `values` for TensorBoard."""
        if self._board is None:
            return
        with self._tolerated.writing(self.path.name):
            self.path.parent.mkdir(exist_ok=True)
            write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in self.lines))
        with self._tolerated.writing(BOARD):
            if BOARD in self._tolerated.failing:
                # A writer that has failed once fails for ever.
                self._board = SummaryWriter(str(self.path.parent / "tensorboard"))
            for name, value in values.items():
                if name != "epoch":
                    self._board.add_scalar(f"epoch/{name}", value, epoch)
            self._board.flush()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `log.txt`, ours or the original's; what is no epoch's line is left out."""
    lines = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "epoch" in line:
            lines.append(line)
    return lines
