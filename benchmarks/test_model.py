"""The backbone, packed, its attention, and how pictures lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.side_by_side import IMAGES, SideBySide, skip_without
from fastdino import attention, vit_tiny
from fastdino.attention import Packing
from fastdino.models.backbones import build_backbone
from fastdino.models.memory_format import for_convolutions

HEADS, WIDTH = 6, 64


@pytest.mark.parametrize(
    ("device", "ours", "reference"),
    [("cpu", "sdpa", "reference"), ("cuda", "xformers", "sdpa"), ("cuda", "varlen", "sdpa")],
)
def test_attention(device: str, ours: str, reference: str, side_by_side: SideBySide) -> None:
    skip_without(device)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    if device == "cuda" and (obstacle := attention.why_not(ours, dtype)):
        pytest.skip(obstacle)
    # ViT-S/16 on two crops of 224 pixels and eight of 96.
    packing = Packing(((2 * IMAGES[device], 197), (8 * IMAGES[device], 37)))
    torch.manual_seed(0)
    qkv = torch.randn(packing.tokens, 3, HEADS, WIDTH, dtype=dtype, device=device, requires_grad=True)

    def of(backend: str) -> Callable[[], tuple[Tensor, Tensor]]:
        def forward_and_backward() -> tuple[Tensor, Tensor]:
            q, k, v = qkv.unbind(1)
            output = attention.attention(q, k, v, packing, backend=backend)
            (gradient,) = torch.autograd.grad(output.sum(), qkv)
            return output.detach(), gradient

        return forward_and_backward

    # Sums of up to 197 numbers below 1, in either order; in bfloat16 the weights have 8 bits.
    atol = 1e-5 if dtype == torch.float32 else 2**-6
    side_by_side(of(ours), of(reference), rtol=0, atol=atol)


@pytest.mark.parametrize("device", IMAGES)
def test_packed_backbone(device: str, side_by_side: SideBySide) -> None:
    skip_without(device)
    torch.manual_seed(0)
    backbone = vit_tiny().to(device)
    large, small = (
        torch.randn(count * IMAGES[device], 3, size, size, device=device) for count, size in ((2, 224), (8, 96))
    )

    def of(forward: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def forward_and_backward() -> tuple[Tensor, ...]:
            features = forward()
            gradients = torch.autograd.grad(features.square().mean(), list(backbone.parameters()))
            return features.detach(), *gradients

        return forward_and_backward

    packed = of(lambda: backbone.forward_packed([large, small]))
    grouped = of(lambda: torch.cat([backbone(large), backbone(small)]))
    # Float32 through twelve blocks, summed over thousands of tokens.
    side_by_side(packed, grouped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch, sizes, pictures", [("resnet_small", (48, 24), 32), ("resnet18", (224, 96), 4)])
def test_pictures_with_channels_side_by_side(
    arch: str, sizes: tuple[int, int], pictures: int, side_by_side: SideBySide
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(arch, patch_size=16, image_size=sizes[0])
    groups = [torch.randn(count * pictures, 3, size, size) for count, size in zip((2, 8), sizes, strict=True)]

    def of(laid: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def forward_and_backward() -> tuple[Tensor, ...]:
            features = torch.cat([backbone(laid(group)) for group in groups])
            gradients = torch.autograd.grad(features.square().mean(), list(backbone.parameters()))
            return features.detach(), *gradients

        return forward_and_backward

    # Float32 through up to 20 convolutions and BatchNorms, whose gradients cancel for the most part.
    side_by_side(of(for_convolutions), of(lambda group: group), rtol=1e-2, atol=1e-3)
