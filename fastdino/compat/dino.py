"""facebookresearch/dino's names and signatures, backed by fastdino.

What was one import from `utils`, `vision_transformer` or `main_dino` there is one import from here. Where the original
fails silently (keys that do not match) this raises an error that says what to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fastdino import optim
from fastdino.data.normalize import normalize
from fastdino.data.plan import CropRecipe, crop_plan
from fastdino.errors import UserError
from fastdino.loss import DINOLoss
from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.models.pretrained import backbone_state
from fastdino.models.vision_transformer import VisionTransformer, vit_base, vit_small, vit_tiny
from fastdino.models.weights import load_strictly, read_weights, save_weights, strip_prefix
from fastdino.optim import cancel_gradients_last_layer, get_params_groups
from fastdino.reference.augment import apply_plan
from fastdino.schedules import cosine_scheduler

__all__ = [
    "LARS",
    "DINOHead",
    "DINOLoss",
    "DataAugmentationDINO",
    "MultiCropWrapper",
    "VisionTransformer",
    "cancel_gradients_last_layer",
    "clip_gradients",
    "cosine_scheduler",
    "get_params_groups",
    "load_checkpoint",
    "load_pretrained_weights",
    "restart_from_checkpoint",
    "save_checkpoint",
    "vit_base",
    "vit_small",
    "vit_tiny",
]


def clip_gradients(model: nn.Module, clip: float) -> list[float]:
    """Clip each gradient tensor by its own L2 norm; returns the norms before clipping as numbers."""
    return optim.clip_gradients(model, clip).tolist()


class LARS(optim.LARS):
    """LARS with the original's arguments; its two filters were never used there, nor are they here."""

    def __init__(
        self,
        params: Any,
        lr: float = 0,
        weight_decay: float = 0,
        momentum: float = 0.9,
        eta: float = 0.001,
        weight_decay_filter: Any = None,
        lars_adaptation_filter: Any = None,
    ) -> None:
        super().__init__(params, lr, weight_decay, momentum, eta)


class DataAugmentationDINO:
    """Multi-crop augmentation of one picture, as a torchvision-style transform.

    Draws follow torch's generator, so that `torch.manual_seed` and DataLoader workers behave as usual.
    """

    def __init__(
        self,
        global_crops_scale: tuple[float, float],
        local_crops_scale: tuple[float, float],
        local_crops_number: int,
    ) -> None:
        self.recipe = CropRecipe(
            global_crops_scale=global_crops_scale,
            local_crops_scale=local_crops_scale,
            local_crops_number=local_crops_number,
        )

    def __call__(self, image: Image.Image) -> list[Tensor]:
        """PIL picture -> normalised float32 crops (3, size, size), the two global ones first."""
        seed = int(torch.randint(2**62, ()))
        image = image.convert("RGB")
        plan = crop_plan(seed, 0, 0, image.width, image.height, self.recipe)
        return [normalize(torch.tensor(crop).permute(2, 0, 1)) for crop in apply_plan(image, plan)]


def load_pretrained_weights(
    model: nn.Module, pretrained_weights: str, checkpoint_key: str | None, model_name: str, patch_size: int
) -> None:
    """Load a backbone's weights from a full checkpoint or a file of its own, every key matching.

    `model_name` and `patch_size` name the model in the error message. Raises UserError for a missing or unreadable
    file and for keys that differ.
    """
    content = read_weights(pretrained_weights)
    state = backbone_state(content, checkpoint_key or "", pretrained_weights)
    load_strictly(
        model, state, pretrained_weights, f"they are not weights of {model_name} with patches of {patch_size}"
    )


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Contents of a checkpoint on the CPU, without running anything in it."""
    return read_weights(Path(path))


def save_checkpoint(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write `content` with torch.save, whole or not at all."""
    save_weights(dict(content), Path(path))


def restart_from_checkpoint(
    ckp_path: str | os.PathLike[str], run_variables: dict[str, Any] | None = None, **objects: Any
) -> None:
    """Restore each of `objects` (modules, optimiser, scaler; None is passed over) and update `run_variables` in place.

    Does nothing without a file. Raises UserError for a key that the file lacks or weights that do not fit.
    """
    if not os.path.isfile(ckp_path):
        return
    content = load_checkpoint(ckp_path)
    for name, target in objects.items():
        if target is None:
            continue
        if name not in content:
            raise UserError(f"{ckp_path} holds no {name!r} (it has {', '.join(content)})")
        if isinstance(target, nn.Module):
            state = content[name]
            if not any(key.startswith("module.") for key in target.state_dict()):
                state = strip_prefix(state, "module.")
            load_strictly(target, state, f"{name} in {ckp_path}", "build the networks that the run was started with")
        else:
            target.load_state_dict(content[name])
    for name in run_variables or {}:
        if name in content:
            run_variables[name] = content[name]  # type: ignore[index]
