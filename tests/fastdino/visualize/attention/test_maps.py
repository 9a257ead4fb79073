from __future__ import annotations

import pytest
import torch

from fastdino.visualize.attention.maps import attention_maps, mass_mask, visible
from tests.fastdino.visualize.small import small_model


def test_maps_are_the_cls_row() -> None:
    model, image = small_model(), torch.randn(3, 32, 24)
    maps = attention_maps(model, image)
    full = model.get_last_selfattention(image[None])
    assert maps.shape == (2, 4, 3)
    # Row 0 is CLS, column 0 its attention to itself; patch (2, 1) is number 2 * 3 + 1.
    # One row alone is another product than all of them: some roundings of float32.
    assert maps[1, 2, 1] == pytest.approx(full[0, 1, 0, 1 + 7].item(), rel=1e-6)
    assert not maps.requires_grad


def test_mask_is_the_smallest_set_with_the_mass() -> None:
    values = torch.tensor([[0.05, 0.4], [0.3, 0.25]])
    assert mass_mask(values, 0.35).tolist() == [[False, True], [False, False]]
    assert mass_mask(values, 0.6).tolist() == [[False, True], [True, False]]
    assert mass_mask(values, 1.0).all()


@pytest.mark.parametrize("threshold", [0.1, 0.37, 0.6, 0.95])
def test_masks_hold_their_share_and_not_one_patch_more(threshold: float) -> None:
    values = torch.rand(9, 7, generator=torch.Generator().manual_seed(1)) * 3
    kept = values[mass_mask(values, threshold)].double()
    assert kept.sum() >= threshold * values.double().sum() > kept.sum() - kept.min()


def test_one_dazzling_patch_does_not_darken_the_rest() -> None:
    values = torch.linspace(0, 1, 200).reshape(10, 20)
    values[0, 0] = 1000
    shown = visible(values)
    assert shown[0, 0] == 1 and shown[5].mean() > 0.4
