from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdino import DINOHead, MultiCropWrapper, VisionTransformer, vit_small
from fastdino.optim import (
    LARS,
    build_optimizer,
    cancel_gradients_last_layer,
    clip_gradients,
    get_params_groups,
)


def tiny_network() -> MultiCropWrapper:
    backbone = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3)
    return MultiCropWrapper(backbone, DINOHead(48, 256, hidden_dim=64, bottleneck_dim=32))


def test_parameter_groups_by_name(golden_meta: dict[str, Any]) -> None:
    network = tiny_network()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = get_params_groups(network)
    assert [[names[id(p)] for p in group["params"]] for group in groups] == golden_meta["param_groups"]
    assert groups[1]["weight_decay"] == 0


def test_vit_small_has_55_and_102_tensors() -> None:
    with torch.device("meta"):
        network = MultiCropWrapper(vit_small(), DINOHead(384, 65536))
    assert [len(group["params"]) for group in get_params_groups(network)] == [55, 102]


def test_lars_equals_the_originals(golden: Callable[[str], dict[str, Tensor]], golden_meta: dict[str, Any]) -> None:
    arrays, settings = golden("lars"), golden_meta["lars"]
    parameters = [nn.Parameter(arrays[f"p{i}.before"].clone()) for i in range(2)]
    groups = [
        {"params": [parameter], "weight_decay": decay}
        for parameter, decay in zip(parameters, settings["weight_decay"], strict=True)
    ]
    optimizer = LARS(groups, lr=settings["lr"], momentum=settings["momentum"], eta=settings["eta"])
    for step in range(3):
        for index, parameter in enumerate(parameters):
            parameter.grad = arrays[f"p{index}.grad"].clone()
        optimizer.step()
        for index, parameter in enumerate(parameters):
            # A few float32 roundings a step, on values of order 1.
            torch.testing.assert_close(parameter.data, arrays[f"p{index}.after{step}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_clipping_is_per_tensor(implementation: str) -> None:
    model = nn.Linear(3, 2)
    model.weight.grad = torch.full((2, 3), 10.0)
    model.bias.grad = torch.tensor([0.3, 0.4])
    norms = clip_gradients(model, 1.0, implementation)
    torch.testing.assert_close(norms, torch.tensor([600**0.5, 0.5]))
    # 1e-6 in the denominator keeps the clipped norm just below the limit.
    torch.testing.assert_close(model.weight.grad.norm(), torch.tensor(1.0), rtol=1e-6, atol=0)
    assert model.weight.grad.norm() <= 1
    assert torch.equal(model.bias.grad, torch.tensor([0.3, 0.4]))


def test_clipping_without_gradients_does_nothing() -> None:
    assert clip_gradients(nn.Linear(2, 2), 1.0).numel() == 0


def test_frozen_last_layer_gets_no_state_and_no_decay() -> None:
    network = tiny_network()
    optimizer = build_optimizer("adamw", network)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.1, 0.5
    before = network.head.last_layer.weight_v.clone()
    network([torch.randn(2, 3, 32, 32)]).square().mean().backward()
    cancel_gradients_last_layer(0, network, 1)
    optimizer.step()
    assert torch.equal(network.head.last_layer.weight_v, before)
    assert network.head.last_layer.weight_v not in optimizer.state
    network([torch.randn(2, 3, 32, 32)]).square().mean().backward()
    cancel_gradients_last_layer(1, network, 1)
    optimizer.step()
    assert not torch.equal(network.head.last_layer.weight_v, before)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_every_optimizer_steps(name: str) -> None:
    network = tiny_network()
    optimizer = build_optimizer(name, network)
    optimizer.param_groups[0]["lr"] = 0.1
    before = network.backbone.cls_token.clone()
    network([torch.randn(2, 3, 32, 32)]).square().mean().backward()
    optimizer.step()
    assert not torch.equal(network.backbone.cls_token, before)


def test_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="adamw, sgd, lars"):
        build_optimizer("adam", nn.Linear(1, 1))


def test_adamw_steps_in_one_pass_as_torch_does_in_many() -> None:
    ours, plain = tiny_network(), tiny_network()
    plain.load_state_dict(ours.state_dict())
    optimizers = build_optimizer("adamw", ours), torch.optim.AdamW(get_params_groups(plain), foreach=False)
    assert all(group["fused"] for group in optimizers[0].param_groups)
    for _ in range(3):
        for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
            if p.requires_grad:
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        # A dozen roundings a step, of the step and of the parameter.
        torch.testing.assert_close(p, q, rtol=3 * 2**-24, atol=3 * 12 * 2**-24 * 1e-3)


def test_how_adamw_steps_is_no_part_of_a_checkpoint() -> None:
    network = tiny_network()
    optimizer = build_optimizer("adamw", network)
    state = optimizer.state_dict()
    assert [group["fused"] for group in state["param_groups"]] == [None, None]
    optimizer.load_state_dict(state)
    assert all(group["fused"] for group in optimizer.param_groups)
    torch.optim.AdamW(get_params_groups(network)).load_state_dict(state)
