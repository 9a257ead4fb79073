from __future__ import annotations

import inspect
import itertools
import math
import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from benchmarks import loader
from benchmarks.loader_peers import BASELINE, PEERS, pictures, table
from benchmarks.loader_peers.measuring import DECODE_ONLY, Measurement, Runner, Settings, cpu_seconds, measure
from benchmarks.loader_peers.recipe import RECIPE
from fastdino.data import plan
from fastdino.data.normalize import IMAGENET_MEAN, IMAGENET_STD

COUNT = 8
BATCH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    pictures.write_pictures(root, COUNT)
    return root


def test_the_set_is_the_same_every_time(folder: Path) -> None:
    written = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    assert written == list(pictures.encoded_pictures(COUNT)) == pictures.read_pictures(folder, COUNT)
    assert len(set(written)) == COUNT


def test_the_set_is_like_imagenet() -> None:
    facts = pictures.describe(list(pictures.encoded_pictures(256)))
    # 8 % and 6 %, rounded to whole pictures.
    assert (facts.pictures, facts.progressive, facts.grey) == (256, 20 / 256, 15 / 256)
    # The page that set the recipe asks for 0.18 MP and 3.8 bits a pixel, "about".
    assert facts.megapixels == pytest.approx(0.18, rel=0.1)
    assert facts.bits_per_pixel == pytest.approx(3.8, rel=0.05)


def test_a_finished_set_is_kept_and_an_unfinished_one_made_again(tmp_path: Path) -> None:
    pictures.write_pictures(tmp_path, 2)
    (tmp_path / "00001.jpg").unlink()
    pictures.write_pictures(tmp_path, 2)
    assert len(pictures.read_pictures(tmp_path, 9)) == 1
    (tmp_path / "pictures.json").unlink()
    pictures.write_pictures(tmp_path, 2)
    assert len(pictures.read_pictures(tmp_path, 9)) == 2
    assert len(pictures.read_pictures(tmp_path, 1)) == 1


@pytest.mark.parametrize("name", PEERS)
def test_peer_makes_the_views(name: str, folder: Path) -> None:
    if reason := PEERS[name].why_missing():
        pytest.skip(reason)
    batches = PEERS[name].batches(folder, COUNT, 1, BATCH)
    # More than one epoch.
    views = [next(batches) for _ in range(COUNT // BATCH + 1)][-1]
    assert [tuple(view.shape) for view in views] == [(BATCH, 3, 224, 224)] * 2 + [(BATCH, 3, 96, 96)] * 8
    expected = {"ours_uint8": torch.uint8, "ours_bfloat16": torch.bfloat16}.get(name, torch.float32)
    assert {view.dtype for view in views} == {expected}
    if expected != torch.uint8:
        _assert_normalised(torch.cat([view.flatten(2).transpose(0, 1).flatten(1) for view in views], 1).float())


def _assert_normalised(values: torch.Tensor) -> None:
    """Each colour's values, (3, n), reach from near (0 - mean) / std to near (1 - mean) / std, and no farther."""
    for colour, mean, std in zip(values, IMAGENET_MEAN, IMAGENET_STD, strict=True):
        levels = colour * std + mean
        # bfloat16 has 8 bits: values up to 2.7 are rounded by at most 2 ** -8 * 2.7 * 0.23.
        assert -0.005 < levels.min() < 0.1
        assert 0.9 < levels.max() < 1.005
        assert 0.1 < levels.std() < 0.5


def test_lightly_has_the_recipe_by_default() -> None:
    transforms = pytest.importorskip("lightly.transforms")
    defaults = {name: each.default for name, each in inspect.signature(transforms.DINOTransform).parameters.items()}
    strength = defaults["cj_strength"]
    jitter = [strength * defaults[name] for name in ("cj_bright", "cj_contrast", "cj_sat", "cj_hue")]
    assert jitter == [RECIPE.brightness, RECIPE.contrast, RECIPE.saturation, RECIPE.hue]
    assert (defaults["global_crop_size"], defaults["local_crop_size"]) == (RECIPE.global_size, RECIPE.local_size)
    assert defaults["global_crop_scale"] == RECIPE.global_crops_scale
    assert defaults["local_crop_scale"] == RECIPE.local_crops_scale
    assert defaults["cj_prob"] == plan.JITTER_PROBABILITY
    assert defaults["hf_prob"] == plan.FLIP_PROBABILITY
    assert defaults["random_gray_scale"] == plan.GRAYSCALE_PROBABILITY
    assert defaults["gaussian_blur"] == plan.BLUR_PROBABILITY
    assert defaults["sigmas"] == plan.BLUR_RADIUS
    assert defaults["solarization_prob"] == plan.SOLARIZE_PROBABILITY[1]
    assert defaults["normalize"] == {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}


def test_a_peer_is_measured_in_its_own_process(folder: Path) -> None:
    runner = Runner(BASELINE, Settings(folder, COUNT, BATCH, measured=COUNT, seconds=0.0))
    try:
        measurement = runner.measure(2)
    finally:
        runner.close()
    assert measurement.pictures == COUNT
    # The workers' share is some 40 ms a picture, without which little more than 1 ms would be left.
    assert measurement.cpu > COUNT * 0.01


def test_measure_counts_whole_batches_after_the_first_ones() -> None:
    taken = itertools.count()
    batches = ([[number] * 16] for number in taken)
    measurement = measure(batches, Settings(Path(), 1, 16, measured=40, seconds=0.0))
    assert measurement.pictures == 48
    assert next(taken) > 4 + 3


def test_cpu_seconds_include_worker_processes() -> None:
    context = multiprocessing.get_context("fork")
    spun, end = context.Event(), context.Event()
    before, own = cpu_seconds(), time.process_time()
    worker = context.Process(target=_spin, args=(spun, end))
    worker.start()
    try:
        assert spun.wait(60)
        of_workers = cpu_seconds() - before - (time.process_time() - own)
    finally:
        end.set()
        worker.join()
    # The kernel counts in hundredths of a second, user and system time apart.
    assert of_workers > 0.3 - 0.03


def _spin(spun: Event, end: Event) -> None:
    while time.process_time() < 0.3:
        pass
    spun.set()
    end.wait(60)


def test_ratios_are_those_of_the_same_round() -> None:
    # The machine is half as fast in the second round.
    results = {
        BASELINE: {1: [Measurement(100, 10.0, 10.0), Measurement(100, 20.0, 20.0)]},
        "ours_float32": {
            1: [Measurement(100, 1.0, 1.25), Measurement(100, 2.0, 2.0)],
            2: [Measurement(100, 0.5, 1.0), Measurement(100, 1.0, 2.0)],
        },
    }
    rows = table.markdown(results, 1).splitlines()
    assert rows[2] == "| ours_float32 | 75.0 | 10.00x | 65.0 | 9.00x | 8.00-10.00 |  |  |"
    assert rows[3] == "| torchvision_pil | 7.5 | 1.00x | 7.5 | 1.00x | 1.00-1.00 |  | the original's way |"
    assert table.markdown(results, 2).splitlines()[2] == "| ours_float32 | 150.0 |  | 75.0 |  |  | 2.00x |  |"
    assert table.summary(results, "ours_float32", 1)["rounds_ratio_per_cpu_second"] == [8.0, 10.0]


def test_stage_table_sums_up_work_alone() -> None:
    stages = {"decode": 3.0, "colour": 1.0, "idle": 7.0, "waiting": 5.0, DECODE_ONLY: 2.5}
    rows = table.stage_table(stages).splitlines()
    assert rows[2:] == [
        "| decode | 3.000 | 75% |",
        "| colour | 1.000 | 25% |",
        "| sum | 4.000 | 250 img/s |",
        "| Pillow's decoding alone | 2.500 | 400 img/s |",
    ]


class _FakeRunner:
    def __init__(self, turns: list[str], name: str, lasts: float) -> None:
        self.turns, self.name, self.left = turns, name, lasts

    def measure(self, threads: int) -> Measurement:
        self.turns.append(f"{self.name}{threads}")
        self.left -= 1
        if self.left < 0:
            raise ImportError("libfoo.so")
        return Measurement(1, 1.0, 1.0)


def test_peers_take_turns_and_one_that_fails_is_named() -> None:
    turns: list[str] = []
    missing: dict[str, str] = {}
    runners: Any = {name: _FakeRunner(turns, name, lasts) for name, lasts in (("a", math.inf), ("b", 3), ("c", 9))}
    results = loader._take_turns(cast(dict[str, Runner], runners), 2, [1, 2], missing)
    assert turns == ["a1", "a2", "b1", "b2", "c1", "c2", "c1", "c2", "b1", "b2", "a1", "a2"]
    assert missing == {"b": "ImportError: libfoo.so"}
    assert {name: [len(rounds) for rounds in each.values()] for name, each in results.items()} == {
        "a": [2, 2],
        "c": [2, 2],
    }
