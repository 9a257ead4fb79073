"""torch.hub loads this repository like the original's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hubconf
from fastdino import vit_small
from fastdino.errors import UserError

ROOT = str(Path(__file__).parents[1])
# Millions of parameters without classifier: the original's table.
MILLIONS = {
    "dino_vits16": 21,
    "dino_vits8": 21,
    "dino_vitb16": 85,
    "dino_vitb8": 85,
    "dino_resnet50": 23,
    "dino_xcit_small_12_p16": 26,
    "dino_xcit_small_12_p8": 26,
    "dino_xcit_medium_24_p16": 84,
    "dino_xcit_medium_24_p8": 84,
}


def test_the_entry_points_are_the_originals() -> None:
    # What torch.hub.list, which knows GitHub's repositories alone, counts as entry points.
    assert {name for name, value in vars(hubconf).items() if callable(value) and name[0] != "_"} == set(MILLIONS)


@pytest.mark.parametrize("name", MILLIONS)
def test_untrained(name: str) -> None:
    with torch.device("meta"):
        model = torch.hub.load(ROOT, name, source="local", pretrained=False)
    assert sum(parameter.numel() for parameter in model.parameters()) // 10**6 in (MILLIONS[name], MILLIONS[name] - 1)


def test_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    published = vit_small(img_size=32)

    def download(*_: Any, **__: Any) -> dict[str, torch.Tensor]:
        return published.state_dict()

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    model = torch.hub.load(ROOT, "dino_vits16", source="local", img_size=32)
    assert torch.equal(model.pos_embed, published.pos_embed)
    with pytest.raises(UserError, match=r"of another shape: pos_embed .* leave out the arguments"):
        torch.hub.load(ROOT, "dino_vits16", source="local", img_size=64)
