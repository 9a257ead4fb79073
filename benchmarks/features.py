"""Features of a folder's pictures as facebookresearch/dino's eval_knn.py takes them, and as ours does, side by side.

    python benchmarks/features.py                                       vit_tiny, vit_small and resnet50, minutes
    python benchmarks/features.py --archs vit_tiny --pictures 64 --rounds 1

The original's way: torchvision's ImageFolder, Resize(256, bicubic), CenterCrop(224), ToTensor and Normalize in a
DataLoader, and its forward pass in float32. Both have the same weights and workers, take turns, each in a process of
its own, and must give the same features. Ours manages memory as the command `fastdino` does. Starting is not timed.

CPU seconds are those of all processes: on a machine with other work, their ratio is the steadier one. `kept` is a
second command, which finds the features that the first has kept. `share_of_loading` is that of reading and cutting in
our CPU seconds; the rest is the network. `times_as_fast_at_most` is what a program would reach that did nothing but the
network's products of matrices and convolutions, at the rate of a large product measured in the same round.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from benchmarks.gpu_proofs.original_backbone import OriginalBackbone
from benchmarks.loader_peers.machine import machine
from benchmarks.loader_peers.pictures import default_folder, write_pictures
from fastdino.allocator import keep_freed_memory
from fastdino.data import FolderSource
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.evaluate.cuts import centre_crop
from fastdino.evaluate.feature_cache import FeatureCache
from fastdino.evaluate.features import batches_of, extract_features
from fastdino.evaluate.loading import Cutting, load_pictures
from fastdino.files import write_atomically
from fastdino.models.backbones import build_backbone
from fastdino.models.vision_transformer import VisionTransformer

SIZE = 224
OURS, ORIGINAL, KEPT, LOADING, PRODUCTS = "fastdino", "original", "kept", "loading", "products"
# Large enough for the matrix library's best rate.
PRODUCT = 2048


class Taken(NamedTuple):
    """Seconds that something took."""

    wall: float
    cpu: float


class Run(NamedTuple):
    """What one process is to do."""

    arch: str
    folder: Path
    batch_size: int
    workers: int
    features: Path
    """Where it leaves them."""


def main() -> None:
    """Measure, compare, print, write."""
    arguments = _parse()
    folder = default_folder(Path(tempfile.gettempdir()), arguments.pictures) / "in_class_folders"
    if arguments.one:
        (arch,) = arguments.archs
        run = Run(arch, folder, arguments.batch_size, arguments.workers, arguments.features)
        print(json.dumps(MEASURED[arguments.one](run)))
        return
    # ImageFolder wants class folders.
    write_pictures(folder / "all", arguments.pictures)
    results = {arch: compare(arch, arguments) for arch in arguments.archs}
    print("| network | pictures/s | original | times as fast | by CPU seconds | at most | kept |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for arch, row in results.items():
        print(
            f"| {arch} | {row['ours_per_second']:.1f} | {row['original_per_second']:.1f} | "
            f"{row['times_as_fast']:.2f} | {row['times_as_fast_by_cpu']:.2f} | {row['times_as_fast_at_most']:.2f} | "
            f"{row['times_as_fast_when_kept']:.0f} |"
        )
    if arguments.output:
        settings = {name: getattr(arguments, name) for name in ("pictures", "batch_size", "workers", "rounds")}
        report = {"machine": machine(), "torch": torch.__version__, "settings": settings, "networks": results}
        write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")


def compare(arch: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Medians over the rounds of pictures a second, ratios within a round, and shares of our time."""
    rounds = []
    with tempfile.TemporaryDirectory() as places:
        paths = {name: Path(places) / f"{name}.pt" for name in MEASURED}
        for number in range(arguments.rounds):
            # There and back again: a drift of the machine then favours neither.
            names = list(MEASURED)[:: -1 if number % 2 else 1]
            rounds.append({name: _in_a_process(name, arch, arguments, paths[name]) for name in names})
            # A dozen blocks of float32 sums over up to 1536 numbers, of features near 1.
            ours, theirs = (torch.load(paths[name]) for name in (OURS, ORIGINAL))
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)

    def over_rounds(number: Callable[[dict[str, Taken]], float]) -> float:
        return median(number(each) for each in rounds)

    return {
        "ours_per_second": over_rounds(lambda each: arguments.pictures / each[OURS].wall),
        "original_per_second": over_rounds(lambda each: arguments.pictures / each[ORIGINAL].wall),
        "times_as_fast": over_rounds(lambda each: each[ORIGINAL].wall / each[OURS].wall),
        "times_as_fast_by_cpu": over_rounds(lambda each: each[ORIGINAL].cpu / each[OURS].cpu),
        "times_as_fast_when_kept": over_rounds(lambda each: each[ORIGINAL].wall / each[KEPT].wall),
        "times_as_fast_at_most": over_rounds(lambda each: each[ORIGINAL].wall / each[PRODUCTS].wall),
        "share_of_loading": over_rounds(lambda each: each[LOADING].cpu / each[OURS].cpu),
    }


def _ours(run: Run, cache: FeatureCache | None = None) -> Taken:
    keep_freed_memory()
    model, source = _network(run.arch), FolderSource(run.folder)
    return _taken(
        lambda: (
            extract_features(
                model, source, image_size=SIZE, batch_size=run.batch_size, num_workers=run.workers, cache=cache
            ).features
        ),
        run.features,
    )


def _kept(run: Run) -> Taken:
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), 10**9)
        _ours(run, cache)
        return _ours(run, cache)


def _original(run: Run) -> Taken:
    """In ImageFolder's order, which for names of equal length is ours."""
    model = _network(run.arch)
    theirs = OriginalBackbone(model).eval() if isinstance(model, VisionTransformer) else model
    transform = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(run.folder), transform),
        batch_size=run.batch_size,
        num_workers=run.workers,
        shuffle=False,
    )
    return _taken(lambda: torch.cat([theirs(pictures) for pictures, _ in loader]), run.features)


def _loading(run: Run) -> Taken:
    source = FolderSource(run.folder)
    keys = batches_of(len(source), run.batch_size)

    batches = load_pictures(source, keys, Cutting(centre_crop, SIZE), num_workers=run.workers)
    return _taken(lambda: torch.tensor([len(batch.indices) for batch in batches]), run.features)


def _products(run: Run) -> Taken:
    """Modelled: floating-point operations of all pictures at a large product's rate."""
    model = _network(run.arch)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, SIZE, SIZE))
    square = torch.randn(PRODUCT, PRODUCT)
    rate = 2 * PRODUCT**3 / min(timeit.repeat(lambda: square @ square, number=1, repeat=20))
    wall = counter.get_total_flops() * len(FolderSource(run.folder)) / rate
    return Taken(wall, wall * torch.get_num_threads())


MEASURED: dict[str, Callable[[Run], Taken]] = {
    OURS: _ours,
    ORIGINAL: _original,
    KEPT: _kept,
    LOADING: _loading,
    PRODUCTS: _products,
}


def _network(arch: str) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(arch, patch_size=16).eval().requires_grad_(False)


@torch.no_grad()
def _taken(function: Callable[[], Tensor], path: Path) -> Taken:
    """Of this process and of workers that it started and that have ended; the result goes to `path`."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    result = function()
    taken = Taken(time.perf_counter() - wall, _cpu_seconds() - cpu)
    torch.save(result, path)
    return taken


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _in_a_process(name: str, arch: str, arguments: argparse.Namespace, features: Path) -> Taken:
    settings = [
        text for size in ("pictures", "batch_size", "workers") for text in (f"--{size}", str(getattr(arguments, size)))
    ]
    command = [sys.executable, __file__, "--one", name, "--archs", arch, "--features", str(features), *settings]
    return Taken(*json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=["vit_tiny", "vit_small", "resnet50"])
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", choices=tuple(MEASURED), help="measure this one in this process, and print JSON")
    parser.add_argument("--features", type=Path, help="where --one leaves them")
    parser.add_argument("--output", type=Path, help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
