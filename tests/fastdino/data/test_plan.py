from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms

from fastdino.data.plan import CropPlan, CropRecipe, _uniform_draws, crop_plan
from fastdino.errors import UserError

SIZE = (500, 375)
DRAWS = 20_000
# Fixed seeds make every statistic below a constant of the code; 1 in 1,000 fair draws would miss the bound.
LEAST_P = 1e-3


@pytest.fixture(scope="module")
def plans() -> list[list[CropPlan]]:
    """Two global and two local crops each: as many draws of either kind as `DRAWS`."""
    return [crop_plan(0, 0, index, *SIZE, local_crops_number=2) for index in range(DRAWS // 2)]


def _torchvision_boxes(scale: tuple[float, float], size: tuple[int, int], count: int) -> npt.NDArray[Any]:
    torch.manual_seed(0)
    image = Image.new("L", size)
    ratio = [3 / 4, 4 / 3]
    draw = transforms.RandomResizedCrop.get_params
    return np.array([draw(image, list(scale), ratio) for _ in range(count)])


def _same_distribution(ours: npt.ArrayLike, theirs: npt.ArrayLike) -> bool:
    return bool(stats.ks_2samp(ours, theirs, method="asymp").pvalue > LEAST_P)


def _boxes(crops: list[CropPlan]) -> npt.NDArray[Any]:
    return np.array([(crop.top, crop.left, crop.height, crop.width) for crop in crops])


@pytest.mark.parametrize(("scale", "first", "last"), [((0.4, 1.0), 0, 2), ((0.05, 0.4), 2, 4)])
def test_boxes_are_distributed_as_torchvisions(
    plans: list[list[CropPlan]], scale: tuple[float, float], first: int, last: int
) -> None:
    ours = _boxes([crop for plan in plans for crop in plan[first:last]])
    assert len(ours) == DRAWS
    theirs = _torchvision_boxes(scale, SIZE, DRAWS)
    width, height = SIZE
    for statistic in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 0] / (height - box[:, 2] + 1),
        lambda box: box[:, 1] / (width - box[:, 3] + 1),
    ):
        assert _same_distribution(statistic(ours), statistic(theirs))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (100, 500), (2, 3), (640, 200)])
def test_boxes_of_odd_pictures_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    plans = [crop_plan(3, 1, index, *size, local_crops_number=1) for index in range(300)]
    for crop, scale in ((0, (0.4, 1.0)), (2, (0.05, 0.4))):
        ours = _boxes([plan[crop] for plan in plans])
        theirs = _torchvision_boxes(scale, size, len(ours))
        assert (ours[:, :2] >= 0).all() and (ours[:, 2:] >= 1).all()
        assert (ours[:, 0] + ours[:, 2] <= size[1]).all() and (ours[:, 1] + ours[:, 3] <= size[0]).all()
        for column in range(4):
            assert _same_distribution(ours[:, column], theirs[:, column])


def test_fallback_is_torchvisions_central_box() -> None:
    for size in [(1, 4000), (4000, 1), (30, 1000), (1000, 31)]:
        # At this scale no drawn box can fit, so both take the fallback.
        (theirs,) = _torchvision_boxes((1.0, 1.0), size, 1)
        plan = crop_plan(0, 0, 0, *size, global_crops_scale=(1.0, 1.0))
        np.testing.assert_array_equal(_boxes(plan[:1])[0], theirs)


def test_jitter_factors_are_distributed_as_torchvisions(plans: list[list[CropPlan]]) -> None:
    torch.manual_seed(0)
    jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    drawn = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(DRAWS)]
    ours = [dict(crop.jitter) for plan in plans for crop in plan if crop.jitter][:DRAWS]
    assert len(ours) == DRAWS
    for place, name in enumerate(("brightness", "contrast", "saturation", "hue"), start=1):
        theirs = [draw[place] for draw in drawn]
        assert _same_distribution([factors[name] for factors in ours], theirs)


def test_jitter_orders_are_all_equally_likely(plans: list[list[CropPlan]]) -> None:
    orders = [tuple(name for name, _ in crop.jitter) for plan in plans for crop in plan if crop.jitter]
    counts = np.unique([" ".join(order) for order in orders], return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > LEAST_P


def test_probabilities_are_the_recipes(plans: list[list[CropPlan]]) -> None:
    first, second = [plan[0] for plan in plans], [plan[1] for plan in plans]
    local = [crop for plan in plans for crop in plan[2:]]
    everything = [crop for plan in plans for crop in plan]

    def check(happened: list[bool], probability: float) -> None:
        assert stats.binomtest(sum(happened), len(happened), probability).pvalue > LEAST_P

    check([crop.flip for crop in everything], 0.5)
    check([bool(crop.jitter) for crop in everything], 0.8)
    check([crop.grayscale for crop in everything], 0.2)
    check([crop.blur_radius > 0 for crop in second], 0.1)
    check([crop.blur_radius > 0 for crop in local], 0.5)
    check([crop.solarize for crop in second], 0.2)
    assert all(crop.blur_radius > 0 for crop in first)
    assert not any(crop.solarize for crop in first + local)
    radii = [crop.blur_radius for crop in first]
    assert stats.kstest(radii, stats.uniform(0.1, 1.9).cdf).pvalue > LEAST_P


def test_draws_are_independent(plans: list[list[CropPlan]]) -> None:
    draws = np.array([_uniform_draws(0, epoch, index, 3) for epoch in range(4) for index in range(500)])
    flat = draws.reshape(len(draws), -1)
    correlation = np.corrcoef(flat.T)
    np.fill_diagonal(correlation, 0)
    # Independent columns of n rows correlate with deviation 1 / sqrt(n); 12,090 pairs stay below 5 of them.
    assert np.abs(correlation).max() < 5 / math.sqrt(len(flat))
    assert stats.kstest(flat.ravel(), "uniform").pvalue > LEAST_P


def _philox4x64(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Philox4x64-10 in Python integers, after Salmon et al. 2011, section 3.3."""
    word = (1 << 64) - 1
    (k0, k1), (a, b, c, d) = key, counter
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = second >> 64 ^ b ^ k0, second & word, first >> 64 ^ d ^ k1, first & word
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & word, k1 + 0xBB67AE8584CAA73B & word
    return a, b, c, d


def test_philox_known_answer() -> None:
    # From the Random123 library's known-answer tests.
    assert _philox4x64((0, 0), (0, 0, 0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )


def test_draws_match_their_specification() -> None:
    seed, epoch, index = (1 << 64) - 2, 17, 123_456_789_012
    draws = _uniform_draws(-2, epoch, index, 10)
    for crop in (0, 1, 9):
        for k in (0, 3, 4, 11, 12, 51):
            words = _philox4x64((seed, epoch), (1 + 16 * crop + k // 4, index, 0, 0))
            assert draws[crop][k] == (words[k % 4] >> 11) * 2.0**-53


def test_plan_follows_from_the_draws_as_specified() -> None:
    for index in range(50):
        for u, crop in zip(_uniform_draws(4, 2, index, 10), crop_plan(4, 2, index, *SIZE), strict=True):
            assert crop.flip == (u[0] < 0.5)
            assert bool(crop.jitter) == (u[1] < 0.8)
            assert crop.grayscale == (u[3] < 0.2)
            if crop.jitter:
                assert dict(crop.jitter)["brightness"] == 0.6 + u[4] * (1.4 - 0.6)
                assert dict(crop.jitter)["hue"] == -0.1 + u[7] * (0.1 - -0.1)
                leading = ("brightness", "contrast", "saturation", "hue")[int(u[2] * 24) // 6]
                assert crop.jitter[0][0] == leading
            if crop.blur_radius:
                assert crop.blur_radius == 0.1 + u[9] * (2.0 - 0.1)


def test_a_crop_depends_on_seed_epoch_index_and_its_number_alone() -> None:
    plan = crop_plan(1, 2, 3, *SIZE)
    assert plan == crop_plan(1, 2, 3, *SIZE)
    assert plan[:5] == crop_plan(1, 2, 3, *SIZE, local_crops_number=3)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert all(a != b for a, b in zip(plan, crop_plan(*other, *SIZE), strict=True))
    assert len({(crop.top, crop.left, crop.height, crop.width) for crop in plan}) == 10


def test_recipe_by_object_and_by_name() -> None:
    recipe = CropRecipe(local_crops_number=1, global_size=64, local_size=32, hue=0)
    plan = crop_plan(0, 0, 0, *SIZE, recipe)
    assert [crop.size for crop in plan] == [64, 64, 32]
    assert plan == crop_plan(0, 0, 0, *SIZE, local_crops_number=1, global_size=64, local_size=32, hue=0)
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_jitter_of_strength_zero_is_left_out() -> None:
    plans = [crop_plan(0, 0, i, *SIZE, brightness=0, saturation=0) for i in range(20)]
    assert {name for plan in plans for crop in plan for name, _ in crop.jitter} == {"contrast", "hue"}
    none = crop_plan(0, 0, 0, *SIZE, brightness=0, contrast=0, saturation=0, hue=0)
    assert all(crop.jitter == () for crop in none)


def test_strong_jitter_never_goes_below_zero() -> None:
    plans = [crop_plan(0, 0, i, *SIZE, brightness=3.0) for i in range(50)]
    factors = [dict(crop.jitter)["brightness"] for plan in plans for crop in plan if crop.jitter]
    assert min(factors) >= 0 and max(factors) > 3


@pytest.mark.parametrize(
    "fields",
    [
        {"global_crops_scale": (0.5, 0.4)},
        {"local_crops_scale": (0.0, 0.4)},
        {"global_crops_scale": (0.5, 1.5)},
        {"local_crops_number": -1},
        {"global_size": 0},
        {"local_size": 0},
        {"brightness": -0.1},
        {"contrast": math.nan},
        {"hue": 0.6},
    ],
)
def test_recipes_out_of_range(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(UserError, match=name):
        CropRecipe(**fields)
