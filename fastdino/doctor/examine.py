"""The examination of one operation's kernels, in a process of its own: a broken kernel can end it.

    python -m fastdino.doctor.examine loss

prints one JSON object a kernel, in lines.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastdino.doctor.findings import Finding
from fastdino.doctor.timing import seconds_of
from fastdino.doctor.trial import CHECKED, INTERPRETED, TIMED, Outputs, Sizes, Trial
from fastdino.doctor.trials import makers

# A kernel adds in another order than PyTorch; what it rounds, it rounds as often at the most.
ALLOWED = 1.5
# Where PyTorch happens to hit the exact value: some roundings of float32.
SLACK = 8 * 2.0**-24
# Outputs of zeros have to be zeros: then any error counts as infinitely large.
TINY = 1e-300
# What 44 million parameters, or the logits of 64 pictures, take with all that belongs to them.
MEMORY_FOR_TIMING = 4 * 2**30


def main() -> None:
    """Examine the operation that is the only argument."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for finding in examined(sys.argv[1], device):
        print(json.dumps(dataclasses.asdict(finding)), flush=True)


def examined(operation: str, device: torch.device) -> Iterator[Finding]:
    """Findings about all kernels of `operation`, with times if `device` is a GPU with room for them."""
    interpreted = device.type != "cuda"
    timed = not interpreted and torch.cuda.mem_get_info(device)[0] > MEMORY_FOR_TIMING
    torch.manual_seed(0)
    # One at a time: what is found stands when the next kernel ends the process.
    for make in makers(operation):
        finding = _judged(operation, make(INTERPRETED if interpreted else CHECKED, device))
        yield _timed(finding, make, device) if timed and not finding.fault else finding


def _timed(finding: Finding, make: Callable[[Sizes, torch.device], Trial], device: torch.device) -> Finding:
    try:
        trial = make(TIMED, device)
        return dataclasses.replace(finding, seconds=seconds_of(trial.launch), bytes=trial.bytes)
    except torch.OutOfMemoryError:
        return finding


def _judged(operation: str, trial: Trial) -> Finding:
    try:
        first, second = trial.run(), trial.run()
        error = error_of(first, trial.plain(), trial.exact())
    except torch.OutOfMemoryError:
        # Someone else uses this GPU; that says nothing about the kernel.
        return Finding(operation, trial.kernel)
    except Exception as problem:  # whatever a compiler or a driver raises
        text = " ".join(str(problem).split())[:200]
        return Finding(operation, trial.kernel, fault=f"{trial.kernel} raised {type(problem).__name__}: {text}")
    fault = ""
    if not error <= 1:
        fault = f"{trial.kernel} is off: its error is {error:.3g} times what is allowed"
    elif not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        fault = f"{trial.kernel} gives other bits when it runs again"
    # JSON has no infinities.
    return Finding(operation, trial.kernel, error if math.isfinite(error) else None, fault=fault)


def error_of(mine: Outputs, plain: Outputs, exact: Outputs) -> float:
    """The largest error of an output, as a multiple of ALLOWED times that of PyTorch in the same types.

    Of all values together and of the worst alone: the one finds what is off by little everywhere, the other what is off
    by much in one place.
    """
    errors = [
        _norm(a.double() - e.double(), order)
        / (ALLOWED * _norm(p.double() - e.double(), order) + SLACK * (_norm(e.double(), order) or TINY))
        for a, p, e in zip(mine, plain, exact, strict=True)
        for order in (2.0, math.inf)
    ]
    # max() would pass over what is no number.
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def _norm(x: Tensor, order: float) -> float:
    return float(torch.linalg.vector_norm(x, order))


if __name__ == "__main__":
    main()
