from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastdino import VisionTransformer, vit_base, vit_large, vit_small, vit_tiny
from fastdino.models.vision_transformer import DropPath

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


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(20_000, 2, 3)
    y = layer(x)
    per_sample = y.flatten(1)
    assert torch.equal(per_sample.amin(dim=1), per_sample.amax(dim=1))
    # Standard error of a Bernoulli mean, rescaled by 1/keep: sqrt(0.25 * 0.75 / 20000) / 0.75; five of them.
    assert abs(y.mean().item() - 1) < 5 * 0.0031 / 0.75
    assert torch.equal(layer.eval()(x), x)


def test_stochastic_depth_grows_linearly() -> None:
    model = vit_tiny(drop_path_rate=0.22)
    torch.testing.assert_close(
        torch.tensor([block.drop_path.rate for block in model.blocks]), torch.linspace(0, 0.22, 12)
    )


def test_classifier_and_channels() -> None:
    model = VisionTransformer(img_size=16, patch_size=8, in_chans=5, num_classes=7, embed_dim=16, depth=1, num_heads=2)
    assert model(torch.zeros(2, 5, 16, 16)).shape == (2, 7)
