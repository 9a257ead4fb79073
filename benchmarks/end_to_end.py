"""Whole training programs on a CPU: `fastdino train` beside the original's main_dino.py and LightlyTrain's DINO.

    git clone https://github.com/facebookresearch/dino /tmp/dino
    python benchmarks/end_to_end.py --original /tmp/dino --lightly_train LIGHTLY/bin/python

All train the same model on the same photographs with the same flags, from files on disk to weights, and take turns.
LightlyTrain asks for versions of its own, so --lightly_train takes the interpreter of another virtual environment, one
with torch and lightly-train. What is missing is left out.

Pictures per second are those between the end of an epoch's first step and that of its last one, loading included:
starting, the loader's first batch, checkpoints and reports are not. The losses say that all do the same: every
program's first one must be near ln(out_dim).

ViT-tiny by default, since an epoch of 300 pictures takes a slow processor of two cores two minutes or three, of
ViT-small four times that; `--arch vit_small --pictures 80 --batch_size 8 --rounds 1` is as long.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.training_peers import Measurement, Peer
from fastdino.errors import UserError
from fastdino.files import write_atomically

OURS, ORIGINAL, LIGHTLY = "fastdino", "original", "LightlyTrain"
# Where things are on one machine is nobody else's concern.
PLACES = ("original", "lightly_train", "output")
Results = Mapping[str, Sequence[Measurement]]
"""One measurement a round, by program."""


def main() -> None:
    """Measure, compare, print, write."""
    from benchmarks.loader_peers.machine import machine, versions
    from benchmarks.loader_peers.pictures import default_folder, write_pictures

    arguments = _parse()
    data = default_folder(Path(tempfile.gettempdir()), arguments.pictures)
    # The original wants a folder for each class; one will do.
    write_pictures(data / "photographs", arguments.pictures)
    peers, left_out = find_peers(arguments.original, arguments.lightly_train)
    load_before = os.getloadavg()[0]
    results = _take_turns(peers, arguments, data)
    _require_equal_start(results, arguments.out_dim)
    print(markdown(results))
    for name, reason in left_out.items():
        print(f"\nleft out: {name} ({reason})")
    if arguments.output:
        report = {
            "machine": machine(),
            "versions": versions(),
            # Above 0 before it, or above the number of cores after it: others were at work.
            "load_average": {"before": load_before, "after": os.getloadavg()[0]},
            "settings": {name: value for name, value in vars(arguments).items() if name not in PLACES},
            "programs": {name: summary(results, name) for name in results},
            "left_out": left_out,
        }
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")


def find_peers(original: Path | None, lightly_train: str) -> tuple[dict[str, Peer], dict[str, str]]:
    """The programs that are there, and why the others are left out."""
    peers, left_out = {OURS: Peer("ours", sys.executable)}, {}
    if original is None:
        left_out[ORIGINAL] = "no --original"
    elif not (original / "main_dino.py").exists():
        left_out[ORIGINAL] = f"no main_dino.py in {original}"
    else:
        peers[ORIGINAL] = Peer("original", sys.executable, (str(original.resolve()),))
    look = [lightly_train, "-c", "from importlib.util import find_spec; exit(find_spec('lightly_train') is None)"]
    if subprocess.run(look).returncode:
        left_out[LIGHTLY] = f"lightly-train is not installed for {lightly_train}: name an interpreter that has it"
    else:
        peers[LIGHTLY] = Peer("lightly_train_dino", lightly_train)
    return peers, left_out


def flags(arguments: argparse.Namespace, data: Path) -> list[str]:
    """What all programs are given: the original's flags."""
    values = {
        "arch": arguments.arch,
        "patch_size": 16,
        "out_dim": arguments.out_dim,
        "batch_size_per_gpu": arguments.batch_size,
        "epochs": arguments.epochs,
        # The original cannot warm up longer than it trains.
        "warmup_epochs": 0,
        "use_fp16": "false",
        "num_workers": arguments.workers,
        "saveckp_freq": 0,
        "data_path": data,
    }
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def _take_turns(peers: Mapping[str, Peer], arguments: argparse.Namespace, data: Path) -> Results:
    results: dict[str, list[Measurement]] = {name: [] for name in peers}
    steps = arguments.pictures // arguments.batch_size
    with tempfile.TemporaryDirectory(prefix="fastdino-end-to-end-") as folder:
        for number in range(arguments.rounds):
            # There and back again: a drift of the machine then favours no program.
            for name in list(peers)[:: -1 if number % 2 else 1]:
                where = Path(folder) / f"{peers[name].module}-{number}"
                measured = peers[name].measure(flags(arguments, data), where, arguments.batch_size, steps)
                results[name].append(measured)
                print(f"round {number + 1}: {name} {measured.images_per_second:.2f} img/s", file=sys.stderr)
    return results


def _require_equal_start(results: Results, out_dim: int) -> None:
    """Raises UserError if a first loss is not that of even guesses, give or take how peaked a fresh head is."""
    for name, measurements in results.items():
        first = measurements[0].losses.first
        if abs(first - math.log(out_dim)) > 0.1 * math.log(out_dim):
            raise UserError(
                f"{name} began with a loss of {first:.3f}, not near ln({out_dim}): it trains something else"
            )


def markdown(results: Results) -> str:
    """A row a program; ratios are ours to its, round by round, so that a slow round slows both."""
    rows = ["| program | images/s | fastdino is | first loss | mean loss |", "|---|---:|---:|---:|---:|"]
    for name in results:
        row = summary(results, name)
        rows.append(
            f"| {name} | {row['images_per_second']:.2f} | {row['times_as_fast']:.2f}x as fast | "
            f"{row['first_loss']:.3f} | {row['mean_loss']:.3f} |"
        )
    return "\n".join(rows)


def summary(results: Results, name: str) -> dict[str, float]:
    """Medians over the rounds."""
    pairs = zip(results[OURS], results[name], strict=True)
    return {
        "images_per_second": median(each.images_per_second for each in results[name]),
        "times_as_fast": median(ours.images_per_second / other.images_per_second for ours, other in pairs),
        "first_loss": median(each.losses.first for each in results[name]),
        "mean_loss": median(each.losses.mean for each in results[name]),
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, help="clone of facebookresearch/dino")
    parser.add_argument("--lightly_train", default=sys.executable, help="interpreter that has lightly-train")
    parser.add_argument("--arch", default="vit_tiny", choices=("vit_tiny", "vit_small", "vit_base"))
    defaults = {"out_dim": 65536, "pictures": 300, "batch_size": 16, "epochs": 1, "rounds": 2}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--workers", type=int, default=2, help="threads or processes that load")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
