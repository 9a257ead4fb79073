"""How far 2 and 4 processes end from one process that takes the same pictures a step, over 20 steps on this CPU.

python -m benchmarks.ranks [--ranks 2 4]
"""

from __future__ import annotations

import argparse
import os

# Before torch is imported: the processes share the cores.
os.environ["OMP_NUM_THREADS"] = "1"

# Makes Triton interpret.
import tests.conftest  # noqa: F401
from tests.fastdino.distributed.processes import in_ranks
from tests.fastdino.distributed.test_equivalence import outcomes
from tests.fastdino.distributed.trainees import Case, farthest, make_trainee, train

CASES = [
    Case(micro_batches=micro_batches, norm_last_layer=norm_last_layer, sharded=sharded, double=double)
    for double in (False, True)
    for sharded in (False, True)
    for micro_batches in (1, 2)
    for norm_last_layer in (True, False)
]
KERNELS = [Case("triton", steps=4)]


def main() -> None:
    """A line a case and number of processes: largest relative difference of a loss, largest difference of a weight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=(2, 4))
    sizes = parser.parse_args().ranks
    cases = [*CASES, *KERNELS]
    alone = [train(make_trainee(whole), whole) for whole in (case._replace(sharded=False) for case in cases)]
    print("| processes | case | losses | weights |\n|---|---|---:|---:|")
    for size in sizes:
        for case, of_one in zip(cases, alone, strict=True):
            losses, weights = farthest(in_ranks(size, outcomes, [case])[0][0], of_one)
            print(f"| {size} | {case} | {losses:.1e} | {weights:.1e} |", flush=True)


if __name__ == "__main__":
    main()
