"""The multi-crop loader beside every other loader that is installed: images per second and per CPU-second.

    python benchmarks/loader.py                                  every peer, one and two threads, minutes
    python benchmarks/loader.py --peers ours_float32,torchvision_pil --threads 1
    python benchmarks/loader.py --data_path DIR                  your own JPEG files

Each peer carries out DINO's recipe (2 x 224 and 8 x 96 pixels) on the same pictures, which are in memory except for
ours_disk, and makes normalised float32 batches unless its row says otherwise. The peers take turns, round after
round, each in a process of its own that rests in between; ratios are those of the same round. The ratio per
CPU-second is the steadiest figure. Two threads are two worker processes where a peer works with torch's DataLoader.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loader_peers import PEERS
from benchmarks.loader_peers.machine import machine, versions
from benchmarks.loader_peers.measuring import Measurement, Runner, Settings
from benchmarks.loader_peers.table import markdown, stage_table, summary
from fastdino.errors import UserError
from fastdino.files import write_atomically

PROFILED = "ours_float32"


def main() -> None:
    """Measure, print, write."""
    arguments = _parse()
    from benchmarks.loader_peers.pictures import default_folder, describe, read_pictures, write_pictures

    folder = arguments.data_path or default_folder(Path(tempfile.gettempdir()), arguments.pictures)
    if arguments.data_path is None:
        write_pictures(folder, arguments.pictures)
    facts = describe(read_pictures(folder, arguments.pictures))
    settings = Settings(folder, facts.pictures, arguments.batch_size, arguments.measured, arguments.seconds)
    _print_facts({**machine(), **versions()})
    _print_facts({name: round(value, 3) for name, value in facts._asdict().items()})

    missing = {name: reason for name in arguments.peers if (reason := PEERS[name].why_missing())}
    runners = {name: Runner(name, settings) for name in arguments.peers if name not in missing}
    try:
        results = _take_turns(runners, arguments.rounds, arguments.threads, missing)
        stages = runners[PROFILED].profile() if PROFILED in results else {}
    finally:
        for runner in runners.values():
            runner.close()

    for threads in arguments.threads:
        print(f"\n{threads} thread{'s' if threads > 1 else ''}, {arguments.rounds} rounds\n")
        print(markdown(results, threads))
    for name, reason in missing.items():
        print(f"\nleft out: {name} ({reason})")
    if stages:
        print(f"\nWhere {PROFILED}'s time goes\n\n{stage_table(stages)}")
    if arguments.output:
        report = {
            "machine": machine(),
            "versions": versions(),
            "pictures": facts._asdict(),
            "settings": {**asdict(settings), "folder": str(folder), "rounds": arguments.rounds},
            "peers": {name: {each: summary(results, name, each) for each in results[name]} for name in results},
            "left_out": missing,
            "milliseconds_by_stage": stages,
        }
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")


def _take_turns(
    runners: dict[str, Runner], rounds: int, threads: list[int], missing: dict[str, str]
) -> dict[str, dict[int, list[Measurement]]]:
    """Measurements by peer and number of threads; a peer that fails leaves the turns and is noted in `missing`."""
    results: dict[str, dict[int, list[Measurement]]] = {name: {each: [] for each in threads} for name in runners}
    for number in range(rounds):
        # There and back again: a drift of the machine then favours no peer.
        for name in list(results)[:: -1 if number % 2 else 1]:
            try:
                for each in threads:
                    results[name][each].append(runners[name].measure(each))
            except Exception as error:  # a peer's own, whichever it is; the others' figures are still good
                missing[name] = f"{type(error).__name__}: {error}"
                del results[name]
                continue
            rates = ", ".join(f"{results[name][each][-1].per_second:.1f} img/s with {each}" for each in threads)
            print(f"round {number + 1}: {name} {rates}", file=sys.stderr)
    return results


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=_peers, default=list(PEERS), help=f"some of {','.join(PEERS)}")
    parser.add_argument("--threads", type=_numbers, default=[1, 2], help="default: 1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=256, help="size of the set")
    parser.add_argument("--measured", type=int, default=96, help="pictures at least, a peer and round")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration at least, a peer and round")
    parser.add_argument("--data_path", type=Path, help="folder of JPEG files in place of the set that is made")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args()


def _peers(names: str) -> list[str]:
    unknown = [name for name in names.split(",") if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return names.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _print_facts(facts: dict[str, object]) -> None:
    print(", ".join(f"{name} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    # Before any library loads, here and in the peers' processes, which inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
