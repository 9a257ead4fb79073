"""Twelve steps of the original's own training, repeated by ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdino import DINOHead, DINOLoss, MultiCropWrapper, VisionTransformer
from fastdino.optim import build_optimizer
from fastdino.schedules import cosine_scheduler
from fastdino.train.build import Schedules
from fastdino.train.precision import Precision
from fastdino.train.step import Trainee, train_step


def network(s: dict[str, Any]) -> MultiCropWrapper:
    backbone = VisionTransformer(
        img_size=s["img"],
        patch_size=s["patch"],
        embed_dim=s["embed_dim"],
        depth=s["depth"],
        num_heads=s["heads"],
    )
    return MultiCropWrapper(
        backbone,
        DINOHead(s["embed_dim"], s["out_dim"], hidden_dim=s["hidden"], bottleneck_dim=s["bottleneck"]),
    )


def trainee_of(s: dict[str, Any], implementation: str) -> Trainee:
    student, teacher = network(s), network(s).requires_grad_(False)
    warmup, temp, epochs = s["teacher_temp"]
    loss = DINOLoss(
        s["out_dim"], s["local_crops"] + 2, warmup, temp, epochs, s["epochs"], implementation=implementation
    )
    precision = Precision("fp32", torch.device("cpu"))
    return Trainee(student, teacher, loss, build_optimizer("adamw", student), precision, implementation)


def schedules_of(s: dict[str, Any]) -> Schedules:
    steps = s["steps_per_epoch"]
    lr, lr_end, warmup = s["lr"]
    return Schedules(
        cosine_scheduler(lr, lr_end, s["epochs"], steps, warmup),
        cosine_scheduler(s["wd"][0], s["wd"][1], s["epochs"], steps),
        cosine_scheduler(s["momentum"][0], s["momentum"][1], s["epochs"], steps),
        steps,
    )


def crops_of(arrays: dict[str, Tensor], step: int, settings: dict[str, Any]) -> list[Tensor]:
    return [arrays[f"step{step}.crop{index}"].float() for index in range(settings["local_crops"] + 2)]


@pytest.mark.parametrize(
    ("implementation", "micro_batches"), [("triton", 1), ("torch", 1), ("torch", 2), ("reference", 1)]
)
def test_losses_and_final_weights(
    golden: Callable[[str], dict[str, Tensor]], golden_meta: dict[str, Any], micro_batches: int, implementation: str
) -> None:
    arrays, settings = golden("trajectory"), golden_meta["trajectory"]
    trainee, schedules = trainee_of(settings, implementation), schedules_of(settings)
    initial = {k.removeprefix("init."): v for k, v in arrays.items() if k.startswith("init.")}
    trainee.student.load_state_dict(initial)
    trainee.teacher.load_state_dict(initial)

    losses = []
    for step in range(len(settings["losses"])):
        parts = zip(*(crop.chunk(micro_batches) for crop in crops_of(arrays, step, settings)), strict=True)
        metrics = train_step(
            trainee,
            [list(part) for part in parts],
            schedules.at(step),
            settings["clip_grad"],
            settings["freeze_last_layer"],
        )
        losses.append(metrics.loss.item())

    # Rounding differences of 1e-7 grow through twelve steps of AdamW, whose first steps depend on gradients' signs.
    assert losses == pytest.approx(settings["losses"], rel=1e-4)
    for name, module in (("student", trainee.student), ("teacher", trainee.teacher)):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, arrays[f"final.{name}.{key}"], rtol=1e-4, atol=1e-4, msg=f"{name} {key}")
    torch.testing.assert_close(trainee.dino_loss.center, arrays["final.center"], rtol=1e-4, atol=1e-4)
