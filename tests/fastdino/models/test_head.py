from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastdino import DINOHead


def assert_equal_at_scale(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest entry: entries are sums of up to 300 float32 products, many of which cancel."""
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_output_and_gradients_equal_the_originals(golden: Callable[[str], dict[str, Tensor]]) -> None:
    arrays = golden("head")
    head = DINOHead(48, 300, hidden_dim=64, bottleneck_dim=32)
    head.load_state_dict({k.removeprefix("weights."): v for k, v in arrays.items() if k.startswith("weights.")})
    x = arrays["input"].requires_grad_()
    output = head(x)
    assert_equal_at_scale(output, arrays["output"])
    output.backward(arrays["upstream"])
    assert_equal_at_scale(x.grad, arrays["grad_input"])
    expected = {k.removeprefix("grad."): v for k, v in arrays.items() if k.startswith("grad.")}
    gradients = {name: p.grad for name, p in head.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_equal_at_scale(gradient, expected[name])


def test_last_layer_equals_torchs_weight_norm() -> None:
    torch.manual_seed(0)
    head = DINOHead(8, 20, norm_last_layer=False, hidden_dim=16, bottleneck_dim=4)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(4, 20, bias=False))
    with torch.no_grad():
        head.last_layer.weight_g.uniform_(0.5, 2)
        theirs.parametrizations.weight.original0.copy_(head.last_layer.weight_g)
        theirs.parametrizations.weight.original1.copy_(head.last_layer.weight_v)
    x = torch.randn(6, 4)
    torch.testing.assert_close(head.last_layer(x), theirs(x))


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_length_of_prototypes_is_frozen_on_demand(norm_last_layer: bool) -> None:
    head = DINOHead(8, 20, norm_last_layer=norm_last_layer)
    names = [name for name, p in head.named_parameters() if p.requires_grad]
    assert ("last_layer.weight_g" in names) is not norm_last_layer
    assert torch.equal(head.last_layer.weight_g, torch.ones(20, 1))
    # Kaiming uniform with a = sqrt(5) is bounded by 1 / sqrt(256).
    assert head.last_layer.weight_v.abs().max() <= 1 / 16


@pytest.mark.parametrize(
    ("layers", "use_bn", "keys"),
    [
        (1, False, {"mlp.weight", "mlp.bias"}),
        (3, False, {f"mlp.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}),
    ],
)
def test_state_keys(layers: int, use_bn: bool, keys: set[str]) -> None:
    head = DINOHead(8, 20, use_bn=use_bn, nlayers=layers)
    assert head.state_dict().keys() == keys | {"last_layer.weight_g", "last_layer.weight_v"}


def test_batchnorm_follows_each_hidden_layer() -> None:
    kinds = [type(layer) for layer in DINOHead(8, 20, use_bn=True).mlp]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.GELU] * 2 + [nn.Linear]
