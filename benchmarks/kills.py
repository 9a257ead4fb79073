"""A small run killed at random moments, and started again until it is done: does it end as if nothing had happened?

    python benchmarks/kills.py --kills 50

Each life is a fork of this process, so that it begins to train at once; SIGKILL comes after a random time, or, every
other life, while a checkpoint is being written. After each death every checkpoint there must be readable. At the end
weights, center and moments must equal the uninterrupted run's bit for bit, and log.txt but for its times. Exit code 1
if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastdino import TrainConfig
from fastdino.config import TrainConfig as Config
from fastdino.models.weights import read_weights
from fastdino.train import report as report_module
from fastdino.train import run as run_module
from fastdino.train.checkpoint import require_intact
from fastdino.train.log import read_log
from fastdino.train.saving import UNPUBLISHED, kept

TIMES = ("images_per_second", "data_wait")


def main() -> int:
    """Parse the flags, train once in peace and once under fire, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = survive(Path(folder), arguments.kills, arguments.epochs, arguments.seed)
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["equal"] and not figures["unreadable"] else 1


def survive(folder: Path, kills: int, epochs: int, seed: int) -> dict[str, Any]:
    """The figures of one experiment in the empty `folder`."""
    draw_pictures(folder / "pictures")
    peaceful, shot = (settings(folder / "pictures", folder / name, epochs) for name in ("peaceful", "shot"))
    started = time.monotonic()
    if wait(start(peaceful)) != 0:
        raise SystemExit("the run failed before anybody shot at it")
    alone = time.monotonic() - started
    generator = random.Random(seed)
    killed = while_writing = unreadable = 0
    while True:
        child = start(shot)
        if killed < kills:
            # A run that is done early is begun anew, so that every kill hits one at work.
            moment = generator.uniform(0, 2 * alone / kills + 0.2)
            written = stop_while_writing(child, Path(shot.output_dir), moment, killed % 2 == 1)
        if killed >= kills or finished(child):
            if wait(child) != 0:
                raise SystemExit("the run failed")
            if killed >= kills:
                break
            for path in kept(Path(shot.output_dir)):
                path.unlink()
            continue
        os.kill(child, signal.SIGKILL)
        wait(child)
        killed += 1
        while_writing += written
        unreadable += sum(not readable(path) for path in kept(Path(shot.output_dir)))
    return {
        "kills": killed,
        "while writing": while_writing,
        "unreadable": unreadable,
        "equal": equal(Path(peaceful.output_dir), Path(shot.output_dir)),
        "seconds": round(time.monotonic() - started, 1),
    }


def settings(pictures: Path, output: Path, epochs: int) -> TrainConfig:
    """A run of a few seconds that saves itself every other step."""
    return Config(
        arch="resnet_small",
        out_dim=64,
        head_hidden_dim=32,
        global_size=32,
        local_size=16,
        local_crops_number=2,
        batch_size_per_gpu=4,
        epochs=epochs,
        warmup_epochs=1,
        saveckp_freq=0,
        save_steps=2,
        num_workers=1,
        data_path=str(pictures),
        output_dir=str(output),
    )


def draw_pictures(folder: Path) -> None:
    """A score of pictures of noise, of two classes, so that nearest neighbours are measured, too."""
    for name in "ab":
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
            folder / "ab"[index % 2] / f"{index}.png"
        )


def start(config: TrainConfig) -> int:
    """A process that trains, by its number."""
    child = os.fork()
    if child:
        return child
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        # No report: it is not what is tested, and takes longer than the run.
        report_module.write_run_report = lambda *_, **__: report_module.RunReport(Path(), None, [])
        run_module.train(config)
    except BaseException as error:
        print(f"the run ended: {type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def stop_while_writing(child: int, output: Path, moment: float, writing: bool) -> bool:
    """Return after `moment` seconds, or later, as soon as a checkpoint is being written; whether one was."""
    time.sleep(moment)
    until = time.monotonic() + 10
    while writing and time.monotonic() < until and not finished(child):
        if (output / UNPUBLISHED).exists() or any(output.glob(".checkpoint*.tmp")):
            return True
        time.sleep(0.0005)
    return False


_ended: dict[int, int] = {}


def finished(child: int) -> bool:
    """Whether the process has ended by itself."""
    if child not in _ended:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            _ended[child] = status
    return child in _ended


def wait(child: int) -> int:
    """Its exit status."""
    return _ended[child] if child in _ended else os.waitpid(child, 0)[1]


def readable(path: Path) -> bool:
    """Whether a checkpoint is whole."""
    try:
        require_intact(path)
        read_weights(path)
    except Exception as error:
        print(f"{path.name}: {error}", file=sys.stderr)
        return False
    return True


def equal(first: Path, second: Path) -> bool:
    """Whether two runs ended alike."""
    lines = [
        [{key: value for key, value in line.items() if key not in TIMES} for line in read_log(output / "log.txt")]
        for output in (first, second)
    ]
    contents = [read_weights(output / "checkpoint.pth") for output in (first, second)]
    names = ("student", "teacher", "dino_loss", "optimizer", "epoch")
    return lines[0] == lines[1] and all(same(contents[0][name], contents[1][name]) for name in names)


def same(first: Any, second: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


if __name__ == "__main__":
    # Threads of a parent's OpenMP do not live in its forks.
    torch.set_num_threads(1)
    sys.exit(main())
