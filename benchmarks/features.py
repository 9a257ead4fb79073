"""Features of a folder's pictures as facebookresearch/dino's eval_knn.py takes them, and as ours does, side by side.

    python benchmarks/features.py                                       vit_tiny, vit_small and resnet50, minutes
    python benchmarks/features.py --archs vit_tiny --pictures 64 --rounds 1

The original's way: torchvision's ImageFolder, Resize(256, bicubic), CenterCrop(224), ToTensor and Normalize in a
DataLoader, and its forward pass in float32. Both have the same weights and workers, take turns, and must give the same
features. CPU seconds are those of all processes: on a machine with other work, their ratio is the steadier one. A
second command finds the features kept. `share_of_loading` is that of reading and cutting in our CPU seconds; the rest
is the network. `times_as_fast_at_most` is what a program would reach that did nothing but the network's products of
matrices and convolutions, at the rate of a large product measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# A script finds only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from benchmarks.gpu_proofs.original_backbone import OriginalBackbone
from benchmarks.loader_peers.pictures import default_folder, write_pictures
from fastdino.data import FolderSource
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD
from fastdino.evaluate.cuts import centre_crop
from fastdino.evaluate.feature_cache import FeatureCache
from fastdino.evaluate.features import extract_features
from fastdino.evaluate.loading import Cutting, load_pictures
from fastdino.files import write_atomically
from fastdino.models.backbones import build_backbone
from fastdino.models.vision_transformer import VisionTransformer

SIZE = 224
# Large enough for the matrix library's best rate.
PRODUCT = 2048


class Taken(NamedTuple):
    """Seconds that something took."""

    wall: float
    cpu: float


def original_features(model: nn.Module, folder: Path, batch_size: int, workers: int) -> Tensor:
    """(n, D), in ImageFolder's order, which for names of equal length is ours."""
    transform = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), transform), batch_size=batch_size, num_workers=workers, shuffle=False
    )
    with torch.no_grad():
        return torch.cat([model(pictures) for pictures, _ in loader])


def taken(function: Callable[[], Any]) -> Taken:
    """Of this process and of workers that it started and that have ended."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    function()
    return Taken(time.perf_counter() - wall, _cpu_seconds() - cpu)


def measure(arch: str, folder: Path, batch_size: int, workers: int, rounds: int) -> dict[str, float]:
    """Pictures a second and CPU second of both ways, ratios of the same rounds, and shares of our time."""
    torch.manual_seed(0)
    ours = build_backbone(arch, patch_size=16).eval().requires_grad_(False)
    theirs = OriginalBackbone(ours).eval() if isinstance(ours, VisionTransformer) else ours
    source = FolderSource(folder)
    count = len(source)
    features: dict[str, Tensor] = {}

    def by_ours(cache: FeatureCache | None = None) -> None:
        features["ours"] = extract_features(
            ours, source, image_size=SIZE, batch_size=batch_size, num_workers=workers, cache=cache
        ).features

    def by_theirs() -> None:
        features["theirs"] = original_features(theirs, folder, batch_size, workers)

    times = []
    for number in range(rounds):
        order = (by_ours, by_theirs) if number % 2 else (by_theirs, by_ours)
        pair = {function: taken(function) for function in order}
        times.append((pair[by_ours], pair[by_theirs]))
    # A dozen blocks of float32 sums over up to 1536 numbers, of features near 1.
    torch.testing.assert_close(features["ours"], features["theirs"], rtol=1e-3, atol=1e-4)

    with tempfile.TemporaryDirectory() as kept:
        cache = FeatureCache(Path(kept), 10**9)
        by_ours(cache)
        again = taken(lambda: by_ours(cache))
    keys = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    loading = taken(lambda: list(load_pictures(source, keys, Cutting(centre_crop, SIZE), num_workers=workers)))
    our_wall, their_wall = (median(pair[which].wall for pair in times) for which in (0, 1))
    our_cpu = median(pair[0].cpu for pair in times)
    return {
        "ours_per_second": count / our_wall,
        "original_per_second": count / their_wall,
        "times_as_fast": median(theirs.wall / ours.wall for ours, theirs in times),
        "times_as_fast_by_cpu": median(theirs.cpu / ours.cpu for ours, theirs in times),
        "times_as_fast_when_kept": their_wall / again.wall,
        "times_as_fast_at_most": their_wall / (count * _products_seconds(ours)),
        "share_of_loading": loading.cpu / our_cpu,
    }


@torch.no_grad()
def _products_seconds(model: nn.Module) -> float:
    """Those of a picture."""
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, SIZE, SIZE))
    square = torch.randn(PRODUCT, PRODUCT)
    rate = 2 * PRODUCT**3 / min(timeit.repeat(lambda: square @ square, number=1, repeat=20))
    return counter.get_total_flops() / rate


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=["vit_tiny", "vit_small", "resnet50"])
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    # ImageFolder wants class folders.
    folder = default_folder(Path(tempfile.gettempdir()), arguments.pictures) / "in_class_folders"
    write_pictures(folder / "all", arguments.pictures)
    results = {
        arch: measure(arch, folder, arguments.batch_size, arguments.workers, arguments.rounds)
        for arch in arguments.archs
    }
    print(f"{torch.get_num_threads()} threads, {arguments.workers} workers")
    for arch, numbers in results.items():
        print(arch, ", ".join(f"{name} {value:.2f}" for name, value in numbers.items()))
    if arguments.output:
        write_atomically(arguments.output, json.dumps(results, indent=2) + "\n")


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
