"""facebookresearch/dino's main_dino.py, unchanged, on a CPU and today's PyTorch.

It asks for a GPU at every turn; what it asks for is answered here, before it starts. Nothing that it computes changes.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from benchmarks.training_peers import STDOUT, Losses

# A meter prints its median and, in parentheses, its mean over the epoch so far.
_LOSS = re.compile(r"loss: ([\d.]+) \(([\d.]+)\)")


def losses(folder: Path) -> Losses:
    """Those of a run, from what it prints: first the first step's, last the epoch's mean."""
    printed = _LOSS.findall((folder / STDOUT).read_text())
    return Losses(float(printed[0][0]), float(printed[-1][1]))


def stand_in_for_a_gpu() -> None:
    """Answer what the program asks of CUDA, NCCL and the network."""
    import torch

    # Its flags name xcit's models, whose list it asks GitHub for.
    torch.hub.list = lambda *_, **__: []
    # One process that finds itself; port 0 is any free one.
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(rank)
    start = torch.distributed.init_process_group
    # It asks for NCCL, which has no CPU.
    torch.distributed.init_process_group = lambda backend, **options: start("gloo", **options)
    for moved in (torch.Tensor, torch.nn.Module):
        moved.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    # Not one function for both: torch._dynamo lists its functions, each once.
    torch.cuda.set_device = lambda *_: None
    torch.cuda.synchronize = lambda *_: None
    make = torch.tensor
    # Its meters are summed over the ranks on device="cuda".
    torch.tensor = lambda *values, device=None, **options: make(*values, **options)
    parallel: Any = torch.nn.parallel.DistributedDataParallel
    # The list of devices must be empty for modules on a CPU.
    torch.nn.parallel.DistributedDataParallel = lambda module, device_ids: parallel(module)  # type: ignore[misc, assignment]


def main() -> None:
    """Arguments: the file of the steps, a clone's folder, the flags."""
    from benchmarks.training_peers.recording import record_steps

    steps, clone = sys.argv[1:3]
    stand_in_for_a_gpu()
    record_steps(steps)
    # As if it were started in its own folder, where its other modules are.
    sys.path.insert(0, clone)
    program = str(Path(clone) / "main_dino.py")
    sys.argv = [program, *sys.argv[3:]]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
