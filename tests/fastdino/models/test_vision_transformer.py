from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from fastdino import VisionTransformer, vit_base, vit_large, vit_small, vit_tiny
from fastdino.attention import Packing
from fastdino.models.drop_path import DropPath
from fastdino.plan.meter import MemoryMeter

# float32 rounding (6e-8) over sums of up to 192 products in four layers, each of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def weights(golden: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden("vit")


@pytest.fixture(scope="module")
def model(weights: dict[str, Tensor]) -> VisionTransformer:
    model = VisionTransformer(img_size=[32], patch_size=8, embed_dim=48, depth=2, num_heads=3, qkv_bias=True)
    model.load_state_dict({k.removeprefix("weights."): v for k, v in weights.items() if k.startswith("weights.")})
    return model.eval()


@pytest.mark.parametrize("resolution", ["native", "local", "wide"])
def test_outputs_equal_the_originals(model: VisionTransformer, weights: dict[str, Tensor], resolution: str) -> None:
    x = weights[f"{resolution}.input"]
    torch.testing.assert_close(model(x), weights[f"{resolution}.cls"], **TOLERANCE)
    torch.testing.assert_close(model.get_last_selfattention(x), weights[f"{resolution}.last_attention"], **TOLERANCE)
    layers = model.get_intermediate_layers(x, n=2)
    for index, layer in enumerate(layers):
        torch.testing.assert_close(layer, weights[f"{resolution}.layer{index}"], **TOLERANCE)


def test_intermediate_layers_are_the_last_n(model: VisionTransformer, weights: dict[str, Tensor]) -> None:
    x = weights["native.input"]
    (last,) = model.get_intermediate_layers(x)
    torch.testing.assert_close(last, weights["native.layer1"], **TOLERANCE)
    torch.testing.assert_close(last[:, 0], model(x), **TOLERANCE)


@pytest.mark.parametrize(
    ("build", "millions"), [(vit_tiny, 5.52), (vit_small, 21.67), (vit_base, 85.80), (vit_large, 303.30)]
)
def test_parameter_counts(build: Callable[..., VisionTransformer], millions: float) -> None:
    with torch.device("meta"):
        model = build()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_timm_loads_the_weights_as_they_are() -> None:
    timm = pytest.importorskip("timm")
    ours = vit_tiny(patch_size=16).eval()
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        # Twelve layers of the same float32 arithmetic in another order of summation.
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = vit_tiny()
    for name, parameter in model.named_parameters():
        if name.startswith("patch_embed"):
            # PyTorch's own default: uniform within 1 / sqrt(fan in).
            assert parameter.abs().max() <= (3 * 16 * 16) ** -0.5
        elif parameter.ndim > 1:
            # Standard error of a standard deviation over n draws: 0.02 / sqrt(2 n); five of them.
            assert abs(parameter.std().item() - 0.02) < 5 * 0.02 / (2 * parameter.numel()) ** 0.5
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float("norm" in name and "weight" in name)))


@pytest.mark.parametrize("rate", [0.03, 0.25])
def test_drop_path_keeps_the_mean_and_drops_whole_sequences(rate: float) -> None:
    torch.manual_seed(0)
    packing = Packing(((10_000, 2), (10_000, 3)))
    layer, x = DropPath(rate), torch.ones(packing.tokens, 3)
    computed = []

    def branch(tokens: Tensor, its_packing: Packing) -> tuple[Tensor, Tensor]:
        assert len(tokens) == its_packing.tokens
        computed.append(its_packing.sequences)
        return tokens, tokens

    y = layer(x, packing, branch) - x
    means = []
    for group in packing.split(y):
        per_sequence = group.flatten(1)
        assert torch.equal(per_sequence.amin(dim=1), per_sequence.amax(dim=1))
        means.append(group.mean())
    # Standard error of a Bernoulli mean of 10,000, rescaled by 1 / keep; five of them.
    assert all(abs(mean - 1) < 5 * (rate / (1 - rate) / 10_000) ** 0.5 for mean in means)
    # Above 3 % the branch is not computed for what is dropped.
    share = computed[0] / packing.sequences
    assert share == 1 if rate <= 0.03 else abs(share - (1 - rate)) < 5 * (rate * (1 - rate) / 20_000) ** 0.5
    assert torch.equal(layer.eval()(x, packing, branch), 2 * x)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.5])
def test_first_tokens_alone_are_dropped_like_whole_sequences(rate: float) -> None:
    packing, layer = Packing(((6, 2), (5, 3))), DropPath(rate)
    x = torch.randn(packing.tokens, 4)
    torch.manual_seed(1)
    whole = layer(x, packing, lambda tokens, _: (tokens, tokens**2))
    torch.manual_seed(1)
    first = layer(x, packing, lambda tokens, of: (tokens, of.first_tokens(tokens) ** 2), only_first=True)
    assert torch.equal(first, packing.first_tokens(whole))


def test_a_branch_in_16_bits_is_added_in_float32() -> None:
    # So rarely dropped that the branch is computed for all.
    packing, layer = Packing(((60, 2), (50, 3))), DropPath(0.02)
    torch.manual_seed(0)
    x, branch = torch.randn(packing.tokens, 4, requires_grad=True), torch.randn(packing.tokens, 4).bfloat16()
    branch.requires_grad_()
    y = layer(x, packing, lambda tokens, _: (tokens, branch))
    assert y.dtype == torch.float32
    kept = ((y - x).abs() > 0).any(dim=1, keepdim=True)
    assert not kept.all()
    factor = torch.ones(()).div_(0.98) * kept
    # The product and the sum are rounded once each, or the sum alone.
    expected = x.double() + branch.double() * factor.double()
    assert ((y - expected).abs() <= 2**-24 * ((branch * factor).abs() + y.abs())).all()
    gradient = torch.randn_like(y)
    of_x, of_branch = torch.autograd.grad(y, (x, branch), gradient)
    assert torch.equal(of_x, gradient)
    assert of_branch.dtype == torch.bfloat16 and torch.equal(of_branch, (gradient * factor).bfloat16())


def test_left_out_sequences_have_no_part_in_the_branch() -> None:
    """Each kept sequence gets what the branch makes of its own tokens, gradients too."""
    packing, layer = Packing(((6, 2), (5, 3))), DropPath(0.5)
    x = torch.randn(packing.tokens, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(packing.tokens, 4, dtype=torch.float64)
    for seed in range(20):
        torch.manual_seed(seed)
        y = layer(x, packing, lambda tokens, _: (tokens, tokens**2))
        kept = ((y - x) != 0).any(dim=1, keepdim=True)
        torch.testing.assert_close(y, x + 2 * x**2 * kept)
        (gradient,) = torch.autograd.grad((y * weights).sum(), x)
        torch.testing.assert_close(gradient, weights * (1 + 4 * x * kept))


def test_a_branch_may_be_dropped_for_all() -> None:
    packing, layer = Packing(((1, 2),)), DropPath(0.99)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4), torch.randn(4, requires_grad=True)
    y = layer(x, packing, lambda tokens, _: (tokens, tokens * weight))
    assert torch.equal(y, x)
    # Other processes wait for this gradient.
    y.sum().backward()
    assert torch.equal(weight.grad, torch.zeros(4))


def test_stochastic_depth_grows_linearly() -> None:
    model = vit_tiny(drop_path_rate=0.22)
    torch.testing.assert_close(
        torch.tensor([block.drop_path.rate for block in model.blocks]), torch.linspace(0, 0.22, 12)
    )


def test_classifier_and_channels() -> None:
    model = VisionTransformer(img_size=16, patch_size=8, in_chans=5, num_classes=7, embed_dim=16, depth=1, num_heads=2)
    assert model(torch.zeros(2, 5, 16, 16)).shape == (2, 7)


CROPS = {
    "2 + 0": [(32, 32)] * 2,
    "2 + 3": [(32, 32)] * 2 + [(16, 16)] * 3,
    "three resolutions": [(32, 32), (32, 32), (24, 24), (16, 16), (16, 16)],
    "not square, in turns": [(32, 16), (16, 32), (32, 16), (16, 32)],
}


@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("sizes", CROPS.values(), ids=CROPS.keys())
@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12)])
def test_packed_equals_crop_by_crop(width: int, heads: int, sizes: list[tuple[int, int]], patch: int) -> None:
    if any(side % patch for size in sizes for side in size):
        pytest.skip("24 pixels are no patches of 16")
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=patch, embed_dim=width, depth=2, num_heads=heads)
    crops = [torch.randn(2, 3, *size) for size in sizes]
    gradients = []
    outputs = [model.forward_packed(crops), torch.cat([model(crop) for crop in crops])]
    for output in outputs:
        model.zero_grad()
        output.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*outputs, **TOLERANCE)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], **TOLERANCE, msg=name)


def test_packed_layers_run_once(model: VisionTransformer) -> None:
    calls: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda module, *_: calls.update([type(module).__name__]))
        for module in model.modules()
    ]
    model.forward_packed([torch.zeros(2, 3, 32, 32)] * 2 + [torch.zeros(2, 3, 16, 16)] * 8)
    for hook in hooks:
        hook.remove()
    # Two blocks of four products and two norms, one more norm at the end, one patch embedding a resolution. The last
    # block takes its queries, and keys and values, with parts of one layer's weights.
    assert calls["Linear"] == 7 and calls["LayerNorm"] == 5 and calls["Conv2d"] == 2


def test_of_the_last_block_only_the_cls_token_is_computed(model: VisionTransformer) -> None:
    """It needs keys and values of all tokens, which are two of the twelve products of width x width a block."""
    crops, tokens, depth, width = [torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 16, 16)], 2 * (17 + 5), 2, 48
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward_packed(crops)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.addmm]
    assert products == 2 * width**2 * (12 * tokens * (depth - 1) + 2 * tokens + 10 * 4)


def test_rows_of_the_attention_are_those_of_the_matrix(model: VisionTransformer, weights: dict[str, Tensor]) -> None:
    x = weights["wide.input"]
    whole = weights["wide.last_attention"]
    torch.testing.assert_close(model.last_attention_rows(x), whole[:, :, :1], **TOLERANCE)
    torch.testing.assert_close(model.last_attention_rows(x, slice(2, 5)), whole[:, :, 2:5], **TOLERANCE)


@pytest.mark.parametrize("what", ["attention", "block"])
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_checkpointing_runs_again_and_changes_no_bit(what: str, rate: float) -> None:
    gradients, runs, kept = [], [], []
    for checkpointing in ("none", what):
        torch.manual_seed(0)
        # A high rate draws on the host, which has to draw the same again; a low one on the device.
        model = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=3, drop_path_rate=rate)
        model.set_checkpointing(checkpointing)
        calls: list[int] = []
        for block in model.blocks:
            block.norm1.register_forward_pre_hook(lambda *_, calls=calls: calls.append(0))
            block.attn.proj.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
            block.mlp.fc1.register_forward_pre_hook(lambda *_, calls=calls: calls.append(2))
        crops = [torch.ones(4, 3, 32, 32), torch.ones(4, 3, 16, 16)]
        torch.manual_seed(1)
        with MemoryMeter(lambda _: "") as meter:
            output = model.forward_packed(crops)
            kept.append(meter.live)
        before = len(calls)
        output.square().sum().backward()
        gradients.append([output, *(p.grad for p in model.parameters())])
        runs.append([calls[before:].count(part) for part in (1, 2)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert runs == [[0, 0], [4, 0 if what == "attention" else 4]]
    assert kept[1] < kept[0]


def test_what_is_cheap_to_compute_again_is_not_kept() -> None:
    """Of GELU only its input, of norms only their input."""
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    kept: list[Tensor] = []
    (block,) = model.blocks
    x = torch.randn(10, 24, requires_grad=True)
    packing = Packing(((2, 5),))
    with mock.patch("fastdino.models.recompute.saved_tensors_hooks", watching(kept)):
        output = block(x, packing)
    hidden = [each for each in kept if each.shape == (10, 96)]
    assert len(hidden) == 1
    output.square().sum().backward()


def watching(kept: list[Tensor]) -> Callable[..., saved_tensors_hooks]:
    def hooks(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> saved_tensors_hooks:
        def watched(x: Tensor) -> Any:
            packed = pack(x)
            if isinstance(packed, Tensor):
                kept.append(packed)
            return packed

        return saved_tensors_hooks(watched, unpack)

    return hooks
