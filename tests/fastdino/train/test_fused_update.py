"""The step with the kernels, in Triton's interpreter, beside the step by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastdino import DINOHead, DINOLoss, MultiCropWrapper, VisionTransformer
from fastdino.optim import build_optimizer
from fastdino.train.checkpoint import load_checkpoint, save_checkpoint
from fastdino.train.position import Position
from fastdino.train.precision import Precision
from fastdino.train.step import StepValues, Trainee, train_step
from fastdino.train.update import TorchUpdate

pytest.importorskip("triton", reason="Triton is made for Linux only")

from triton.runtime.interpreter import GridExecutor

from benchmarks.gpu_proofs.interpreter import correct_bfloat16
from fastdino.train.fused_update import FusedUpdate

correct_bfloat16()

CPU = torch.device("cpu")
VALUES = StepValues(epoch=3, lr=2e-3, weight_decay=0.1, momentum=0.9)


def make_trainee(
    implementation: str = "triton",
    precision: str = "bf16",
    out_dim: int = 61,
    norm_last_layer: bool = True,
    optimizer: str = "adamw",
) -> Trainee:
    """61 prototypes do not fill whole 16 bytes."""
    torch.manual_seed(0)

    def network(norm: bool) -> MultiCropWrapper:
        backbone = VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3)
        return MultiCropWrapper(backbone, DINOHead(24, out_dim, False, norm, hidden_dim=40, bottleneck_dim=32))

    student, teacher = network(norm_last_layer), network(True).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    loss = DINOLoss(out_dim, 3, 0.04, 0.04, 0, 10, implementation=implementation)
    loss.center.normal_(generator=torch.Generator().manual_seed(2), std=0.1)
    return Trainee(
        student, teacher, loss, build_optimizer(optimizer, student), Precision(precision, CPU), implementation
    )


def crops(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, size, size, generator=generator) for size in (16, 16, 8)]


def run(trainee: Trainee, steps: int = 3, micro_batches: int = 1, values: StepValues = VALUES) -> Trainee:
    for step in range(steps):
        batches = [list(part) for part in zip(*(crop.chunk(micro_batches) for crop in crops(step)), strict=True)]
        train_step(trainee, batches, values, 0.3, 1)
    return trainee


def weights(trainee: Trainee) -> dict[str, Tensor]:
    parts = {"student": trainee.student, "teacher": trainee.teacher, "loss": trainee.dino_loss}
    return {f"{name}.{key}": x.clone() for name, module in parts.items() for key, x in module.state_dict().items()}


def distance(trainee: Trainee, other: Trainee) -> dict[str, float]:
    """Of the student, the teacher and the center: how far all values together are from another's."""
    mine, others = weights(trainee), weights(other)
    return {
        part: float(sum(((mine[k] - others[k]).double() ** 2).sum() for k in mine if k.startswith(part))) ** 0.5
        for part in ("student", "teacher", "loss")
    }


@pytest.mark.parametrize("norm_last_layer", [True, False])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_bfloat16_is_no_further_from_float32_than_autocast(micro_batches: int, norm_last_layer: bool) -> None:
    settings: dict[str, Any] = {"norm_last_layer": norm_last_layer}
    exact = run(make_trainee("torch", "fp32", **settings), micro_batches=micro_batches)
    autocast = distance(run(make_trainee("torch", **settings), micro_batches=micro_batches), exact)
    fused = run(make_trainee(**settings), micro_batches=micro_batches)
    assert isinstance(fused.update, FusedUpdate)
    # Both round the same products to bfloat16, the kernels the prototypes' lengths in another order.
    assert all(value <= 1.25 * autocast[part] for part, value in distance(fused, exact).items())


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_float32_follows_torch(norm_last_layer: bool) -> None:
    fused = weights(run(make_trainee(precision="fp32", norm_last_layer=norm_last_layer)))
    torchs = weights(run(make_trainee("torch", "fp32", norm_last_layer=norm_last_layer)))
    for key, value in torchs.items():
        mine = fused[key]
        if key.endswith("qkv.bias"):
            # The keys' bias moves all of a row's scores alike: its gradient is rounding, whose sign AdamW goes by.
            mine, value = (torch.cat((x[:24], x[48:])) for x in (mine, value))
        # Where a gradient is near 0, AdamW's first steps amplify rounding to a share of the learning rate.
        torch.testing.assert_close(mine, value, rtol=1e-4, atol=2e-5, msg=key)


def test_networks_keep_their_own_weights_and_gradients_are_of_copies() -> None:
    trainee = make_trainee()
    parameters = dict(trainee.student.named_parameters())
    run(trainee, 1)
    update = trainee.update
    assert isinstance(update, FusedUpdate)
    assert dict(trainee.student.named_parameters()) == parameters
    assert all(p.dtype == torch.float32 for p in parameters.values())
    # LayerNorm, class token and position embedding compute in float32 under autocast.
    with_gradient = {name for name, p in parameters.items() if p.grad is not None}
    norms = {name for name, m in trainee.student.named_modules() if isinstance(m, nn.LayerNorm)}
    tokens = {"backbone.cls_token", "backbone.pos_embed"}
    assert with_gradient == tokens | {f"{name}.{key}" for name in norms for key in ("weight", "bias")}
    copies = {k: g.dtype for k, g in zip(parameters, update.copies[0].gradients(), strict=True) if g is not None}
    assert copies.keys() | with_gradient == parameters.keys() - {"head.last_layer.weight_g"}
    assert set(copies.values()) == {torch.bfloat16}
    run(trainee, 1, micro_batches=2)
    assert {g.dtype for g in update.copies[0].gradients() if g is not None} == {torch.float32}


def test_the_update_goes_without_the_losss_kernels() -> None:
    """As where the doctor has switched off the loss alone, whose kernels are the ones that know of padded logits."""
    mixed, both = make_trainee(), make_trainee()
    mixed.dino_loss.implementation = "torch"
    start = weights(both)
    run(mixed, 1), run(both, 1)
    moved = {k: (x - start[k]).norm() for k, x in weights(both).items()}
    assert all((x - weights(both)[k]).norm() <= 0.1 * moved[k] + 1e-6 for k, x in weights(mixed).items() if "head" in k)


def test_an_error_in_a_network_leaves_the_weights_in_their_place() -> None:
    trainee = make_trainee()
    parameters = dict(trainee.student.named_parameters())
    with pytest.raises(RuntimeError):
        train_step(trainee, [[torch.zeros(4, 4, 16, 16)] * 3], VALUES, 0.3, 1)
    assert dict(trainee.student.named_parameters()) == parameters
    run(trainee, 1)


def test_frozen_prototypes_stay_and_keep_no_state() -> None:
    trainee = make_trainee()
    before = trainee.student.head.last_layer.weight_v.clone()
    run(trainee, 2, values=VALUES._replace(epoch=0))
    assert torch.equal(trainee.student.head.last_layer.weight_v, before)
    parameters = [p for group in trainee.optimizer.param_groups for p in group["params"]]
    (index,) = (i for i, p in enumerate(parameters) if p is trainee.student.head.last_layer.weight_v)
    assert index not in trainee.optimizer.state_dict()["state"]
    assert len(trainee.optimizer.state_dict()["state"]) == len(parameters) - 1


@pytest.mark.parametrize(("before", "after"), [("triton", "triton"), ("triton", "torch"), ("torch", "triton")])
def test_checkpoints_pass_between_implementations(tmp_path: Path, before: str, after: str) -> None:
    straight, resumed = make_trainee(before, "fp32"), make_trainee(after, "fp32")
    run(straight, 2)
    save_checkpoint(tmp_path / "checkpoint.pth", straight, Position(4), {})
    assert load_checkpoint(tmp_path / "checkpoint.pth", resumed).epoch == 4
    assert distance(straight, resumed) == {"student": 0, "teacher": 0, "loss": 0}
    if before == after:
        assert distance(run(straight, 1), run(resumed, 1)) == {"student": 0, "teacher": 0, "loss": 0}
    else:
        step = distance(make_trainee(), run(straight, 1))["student"]
        assert distance(straight, run(resumed, 1))["student"] < 1e-2 * step


def test_a_checkpoint_loaded_after_the_first_step_reaches_the_copies(tmp_path: Path) -> None:
    first, second = run(make_trainee(), 2), run(make_trainee(), 1)
    save_checkpoint(tmp_path / "checkpoint.pth", first, Position(4), {})
    load_checkpoint(tmp_path / "checkpoint.pth", second)
    assert distance(run(first, 1), run(second, 1)) == {"student": 0, "teacher": 0, "loss": 0}


def test_after_an_overflow_student_waits_teacher_and_center_go_on() -> None:
    trainee, torchs = make_trainee(precision="fp16"), make_trainee("torch", "fp16")
    scale = 2.0**60
    for each in (trainee, torchs):
        rescale(each, 1.0)
        run(each, 1)
        rescale(each, scale)
    before = weights(trainee)
    run(trainee, 1), run(torchs, 1)
    after = weights(trainee)
    assert all(torch.equal(x, before[k]) for k, x in after.items() if k.startswith("student"))
    assert not torch.equal(after["teacher.head.mlp.0.weight"], before["teacher.head.mlp.0.weight"])
    assert not torch.equal(after["loss.center"], before["loss.center"])
    assert trainee.precision.state_dict() == torchs.precision.state_dict()
    assert trainee.precision.state_dict()["scale"] == scale / 2
    # One step of AdamW in float16 on each side, and an average that both take of it.
    torch.testing.assert_close(after["loss.center"], torchs.dino_loss.center, rtol=2**-9, atol=2**-10)


def rescale(trainee: Trainee, scale: float) -> None:
    state = trainee.precision.state_dict()
    assert state is not None
    trainee.precision.load_state_dict({**state, "scale": scale})


def test_other_optimisers_keep_pytorch() -> None:
    trainee = run(make_trainee(optimizer="sgd", precision="fp32"))
    assert isinstance(trainee.update, TorchUpdate)
    torchs = run(make_trainee("torch", "fp32", optimizer="sgd"))
    moved = distance(torchs, make_trainee("torch", "fp32", optimizer="sgd"))
    assert all(value < 1e-4 * moved[part] for part, value in distance(trainee, torchs).items())


class ForbidWaiting(TorchDispatchMode):
    """Raises where the host would read from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_waits_for_nothing(precision: str) -> None:
    trainee = run(make_trainee(precision=precision), 1)
    with ForbidWaiting():
        train_step(trainee, [crops(1)], VALUES, 0.3, 1)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), ForbidWaiting():
        torch.ones(()).item()


def test_a_step_launches_six_kernels() -> None:
    """Of the loss: statistics, gradient, totals and their means; of the update: norms, and all that moves."""
    trainee = run(make_trainee(), 1)
    launched = []
    original = GridExecutor.__call__

    def counting(executor: GridExecutor, *args: Any, **kwargs: Any) -> None:
        launched.append(executor.fn.__name__)
        original(executor, *args, **kwargs)

    with mock.patch.object(GridExecutor, "__call__", counting):
        run(trainee, 1)
    assert launched == [
        "dino_loss_statistics",
        "dino_loss_gradient",
        "dino_loss_totals",
        "dino_loss_means",
        "squares_and_constants",
        "adamw_and_ema",
    ]
