from __future__ import annotations

import pytest
import torch

from fastdino.config import KnnConfig
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of, patches_of


def test_an_untrained_network_is_the_same_in_every_process() -> None:
    config = KnnConfig(arch="resnet_small")
    torch.manual_seed(1)
    first = backbone_of(config)
    state = torch.get_rng_state()
    second = backbone_of(config)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(UserError, match="copies takes features of patches, which resnet_small lacks"):
        patches_of(first, "copies")
