from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastdino.models.backbones import build_backbone
from fastdino.visualize.contributions import contributions, draw_contributions


class Pooled(nn.Module):
    """Mean over 4 x 4 cells of a picture, of red and of 1 - red."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.AvgPool2d(4)
        self.both = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.both.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])[:, :, None, None])
            self.both.bias.copy_(torch.tensor([0.0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.both(self.cells(x)).mean(dim=(2, 3))


def test_shares_are_those_of_the_formula() -> None:
    pixels = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))
    shares = contributions(Pooled(), pixels)
    red = pixels[0].reshape(2, 4, 3, 4).mean(dim=(1, 3))
    grid = torch.stack((red, 1 - red))
    feature = grid.mean(dim=(1, 2))
    wanted = (grid * feature[:, None, None]).sum(0) / (6 * feature.square().sum())
    assert shares is not None
    # Sums of a dozen float32 numbers.
    torch.testing.assert_close(shares, wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("arch", ["resnet_small", "resnet18"])
def test_networks_that_pool_have_them(arch: str) -> None:
    network = build_backbone(arch).eval()
    with torch.no_grad():
        shares = contributions(network, torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0)))
    assert shares is not None
    assert shares.shape[1] == 1.5 * shares.shape[0]
    # 512 products of float32 numbers, twice.
    torch.testing.assert_close(shares.sum(), torch.tensor(1.0), rtol=1e-4, atol=0)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_picture_is_seen_in_enough_places() -> None:
    picture = Image.new("RGB", (100, 80), "red")
    drawn = draw_contributions(build_backbone("resnet_small").eval(), picture, image_size=48)
    assert drawn is not None
    assert drawn.width > 3 * drawn.height


@pytest.mark.parametrize("arch", ["vit_tiny", "convnext_atto"])
def test_other_networks_have_none(arch: str) -> None:
    # ConvNeXt normalises after the mean.
    assert contributions(build_backbone(arch).eval(), torch.randn(3, 64, 64)) is None
