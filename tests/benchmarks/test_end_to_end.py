from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import end_to_end
from benchmarks.training_peers import Losses, Measurement, Peer, images_per_second, ours
from fastdino.errors import UserError
from fastdino.train.guards import Tolerated
from fastdino.train.log import RunLog

# What the original asks of a GPU, each thing once.
STAND_IN = """
import argparse, os
import torch
import torch.distributed as dist
from torch import nn
import meters

parser = argparse.ArgumentParser()
parser.add_argument("--arch", choices=["tiny", *torch.hub.list("facebookresearch/xcit:main")])
parser.add_argument("--output_dir")
arguments = parser.parse_args()
dist.init_process_group(backend="nccl", init_method="env://", world_size=int(os.environ["WORLD_SIZE"]),
                        rank=int(os.environ["RANK"]))
torch.cuda.set_device(0)
dist.barrier()
model = nn.Linear(2, 1).cuda()
model = nn.parallel.DistributedDataParallel(model, device_ids=[0])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    loss = model(torch.ones(1, 2).cuda(non_blocking=True)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    torch.cuda.synchronize()
    print(f"[{step}/3]  loss: {4 - step:.6f} ({4 - step / 2:.6f})  lr: 0.1")
total = torch.tensor([3.0], dtype=torch.float64, device="cuda")
dist.all_reduce(total)
print("Averaged stats:", "loss: 2.000000 (3.000000)", meters.NAME, total.item())
"""


def test_the_original_runs_without_a_gpu(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "main_dino.py").write_text(STAND_IN)
    (clone / "meters.py").write_text("NAME = 'meters'\n")
    peer = Peer("original", sys.executable, (str(clone),))
    measured = peer.measure(["--arch", "tiny"], tmp_path / "run", batch_size=4, steps_per_epoch=3)
    assert measured.losses == Losses(4.0, 3.0)
    assert measured.images_per_second > 0
    assert len((tmp_path / "run" / "steps.txt").read_text().split()) == 3


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing ended with code 1: .*No module named"):
        Peer("missing", sys.executable).measure([], tmp_path / "run", 4, 3)


def test_an_epochs_first_step_does_not_count() -> None:
    # Two epochs of three steps of 2 s, with a checkpoint of 100 s in between.
    assert images_per_second([50, 52, 54, 156, 158, 160], batch_size=8, steps_per_epoch=3) == 4.0
    with pytest.raises(UserError, match="at least two steps"):
        images_per_second([50, 60], batch_size=8, steps_per_epoch=1)


def test_our_losses_are_read_from_our_logs(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run", 0, 0, Tolerated(Console()))
    for step, loss in enumerate((6.5, 6.0)):
        log.step(step, {"loss": loss})
    log.epoch({"epoch": 0, "train_loss": 6.25})
    log.close()
    assert ours.losses(tmp_path) == Losses(6.5, 6.25)


def test_ratios_are_those_of_the_same_round() -> None:
    losses = Losses(11.0, 10.5)
    # The machine is half as fast in the second round.
    results = {
        "fastdino": [Measurement(4.0, losses), Measurement(2.0, losses)],
        "original": [Measurement(2.0, losses), Measurement(1.0, losses)],
    }
    assert end_to_end.markdown(results).splitlines()[2:] == [
        "| fastdino | 3.00 | 1.00x as fast | 11.000 | 10.500 |",
        "| original | 1.50 | 2.00x as fast | 11.000 | 10.500 |",
    ]


def test_programs_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    peers, left_out = end_to_end.find_peers(tmp_path, sys.executable)
    assert "fastdino" in peers
    assert left_out["original"] == f"no main_dino.py in {tmp_path}"
    assert set(peers) | set(left_out) == {"fastdino", "original", "LightlyTrain"}
    assert end_to_end.find_peers(None, sys.executable)[1]["original"] == "no --original"


def test_a_program_that_starts_elsewhere_is_refused() -> None:
    results = {"original": [Measurement(1.0, Losses(4.0, 4.0))]}
    with pytest.raises(UserError, match=r"original began with a loss of 4\.000, not near ln"):
        end_to_end._require_equal_start(results, 65536)
