from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastdino.compat import dino
from fastdino.errors import UserError


def golden_network(settings: dict[str, Any]) -> dino.MultiCropWrapper:
    backbone = dino.VisionTransformer(img_size=[32], patch_size=8, embed_dim=48, depth=2, num_heads=3)
    head = dino.DINOHead(48, settings["out_dim"], hidden_dim=settings["hidden"], bottleneck_dim=settings["bottleneck"])
    return dino.MultiCropWrapper(backbone, head)


SIGNATURES = {
    "cosine_scheduler": "base_value, final_value, epochs, niter_per_ep, warmup_epochs, start_warmup_value",
    "get_params_groups": "model",
    "clip_gradients": "model, clip",
    "cancel_gradients_last_layer": "epoch, model, freeze_last_layer",
    "LARS": "params, lr, weight_decay, momentum, eta, weight_decay_filter, lars_adaptation_filter",
    "MultiCropWrapper": "backbone, head",
    "DINOHead": "in_dim, out_dim, use_bn, norm_last_layer, nlayers, hidden_dim, bottleneck_dim",
    "DINOLoss": "out_dim, ncrops, warmup_teacher_temp, teacher_temp, warmup_teacher_temp_epochs, nepochs, "
    "student_temp, center_momentum",
    "DataAugmentationDINO": "global_crops_scale, local_crops_scale, local_crops_number",
    "vit_tiny": "patch_size",
    "vit_small": "patch_size",
    "vit_base": "patch_size",
    "load_pretrained_weights": "model, pretrained_weights, checkpoint_key, model_name, patch_size",
    "restart_from_checkpoint": "ckp_path, run_variables",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_originals_arguments_come_first(name: str) -> None:
    expected = SIGNATURES[name].split(", ")
    assert list(inspect.signature(getattr(dino, name)).parameters)[: len(expected)] == expected


def test_pretrained_weights_load_from_a_full_checkpoint(golden_checkpoint: Path, golden_meta: dict[str, Any]) -> None:
    network = golden_network(golden_meta["trajectory"])
    before = network.backbone.cls_token.clone()
    dino.load_pretrained_weights(network.backbone, str(golden_checkpoint), "teacher", "vit", 8)
    content = dino.load_checkpoint(golden_checkpoint)
    assert torch.equal(network.backbone.cls_token, content["teacher"]["backbone.cls_token"])
    assert not torch.equal(network.backbone.cls_token, before)


def test_pretrained_weights_of_another_model_are_refused(golden_checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"cls_token \(1, 1, 48\).*not weights of vit_tiny with patches of 8"):
        dino.load_pretrained_weights(dino.vit_tiny(8), str(golden_checkpoint), "teacher", "vit_tiny", 8)


def test_restart_restores_everything(golden_checkpoint: Path, golden_meta: dict[str, Any]) -> None:
    student, teacher = golden_network(golden_meta["trajectory"]), golden_network(golden_meta["trajectory"])
    optimizer = torch.optim.AdamW(dino.get_params_groups(student))
    loss = dino.DINOLoss(256, 5, 0.04, 0.07, 2, 3)
    variables = {"epoch": 0}
    dino.restart_from_checkpoint(
        golden_checkpoint,
        run_variables=variables,
        student=student,
        teacher=teacher,
        optimizer=optimizer,
        fp16_scaler=None,
        dino_loss=loss,
    )
    assert variables == {"epoch": 3}
    assert len(optimizer.state) == 37
    assert loss.center.abs().max() > 0
    content = dino.load_checkpoint(golden_checkpoint)
    assert torch.equal(student.head.last_layer.weight_v, content["student"]["module.head.last_layer.weight_v"])


def test_restart_without_a_file_changes_nothing(tmp_path: Path) -> None:
    variables = {"epoch": 0}
    dino.restart_from_checkpoint(tmp_path / "none.pth", variables, student=nn.Linear(1, 1))
    assert variables == {"epoch": 0}


def test_restart_names_what_is_missing(tmp_path: Path) -> None:
    dino.save_checkpoint({"epoch": 1}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="holds no 'student'"):
        dino.restart_from_checkpoint(tmp_path / "c.pth", student=nn.Linear(1, 1))


def test_augmentation_gives_normalised_crops_and_follows_torchs_seed() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
    transform = dino.DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 3)
    torch.manual_seed(5)
    crops = transform(image)
    assert [tuple(crop.shape) for crop in crops] == [(3, 224, 224)] * 2 + [(3, 96, 96)] * 3
    assert all(crop.dtype == torch.float32 for crop in crops)
    other = transform(image)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(crops, transform(image), strict=True))
    assert not torch.equal(crops[0], other[0])


def test_clip_returns_numbers() -> None:
    model = nn.Linear(2, 2)
    model.weight.grad = torch.full((2, 2), 3.0)
    assert dino.clip_gradients(model, 1.0) == [6.0]
