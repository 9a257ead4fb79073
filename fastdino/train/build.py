"""From settings to the things that train: networks, loss, optimiser, schedules."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fastdino.config import TrainConfig
from fastdino.distributed.world import ALONE, World
from fastdino.errors import UserError
from fastdino.loss import DINOLoss
from fastdino.models.backbones import build_backbone, embedding_width, has_batchnorms
from fastdino.models.head import DINOHead
from fastdino.models.multicrop import MultiCropWrapper
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.optim import build_optimizer
from fastdino.schedules import cosine_scheduler
from fastdino.train.precision import Precision, choose_precision
from fastdino.train.step import StepValues, Trainee


def build_trainee(config: TrainConfig, device: torch.device, world: World = ALONE) -> Trainee:
    """Student and teacher with equal weights drawn from the seed, loss and optimiser, on `device`.

    The teacher has neither stochastic depth nor gradients, and its prototypes are always of fixed length. Where several
    processes train on GPUs, BatchNorm takes the statistics of all their pictures; torch's cannot on CPUs.

    Raises UserError for settings that do not go together.
    """
    precision = Precision(choose_precision(config.precision, config.use_fp16, device), device)
    if config.fsdp:
        _check_fsdp(config, precision, world)
    # Whole, split networks need not fit the device.
    home = torch.device("cpu") if config.fsdp else device
    student = _on(home, initial_network(config))
    if config.checkpointing != "none":
        _checkpoint(student.backbone, config)
    teacher = _on(home, _network(config, 0.0, True))
    for backbone in (student.backbone, teacher.backbone):
        if isinstance(backbone, VisionTransformer):
            backbone.set_implementation(config.implementation)
    teacher.load_state_dict(student.state_dict())
    if config.compile:
        _compile(student.backbone, teacher.backbone, config.arch)
    teacher.requires_grad_(False)
    for module in teacher.modules():
        # torchvision's models carry these at rates of their own; it is not imported where it is not needed.
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]
    if config.batch_size_per_gpu == 1 and has_batchnorms(student):
        raise UserError(f"{config.arch} has BatchNorm, which needs --batch_size_per_gpu of at least 2")
    dino_loss = DINOLoss(
        config.out_dim,
        config.ncrops,
        config.warmup_teacher_temp,
        config.teacher_temp,
        config.warmup_teacher_temp_epochs,
        config.epochs,
        implementation=config.implementation,
    ).to(device)
    if world.size > 1 and device.type == "cuda":
        student, teacher = (nn.SyncBatchNorm.convert_sync_batchnorm(network) for network in (student, teacher))
    if config.fsdp:
        # Its import takes a second.
        from fastdino.distributed.sharding import shard

        shard(student, teacher, world)
    optimizer = build_optimizer(config.optimizer, student)
    return Trainee(student, teacher, dino_loss, optimizer, precision, config.implementation, world)


def _check_fsdp(config: TrainConfig, precision: Precision, world: World) -> None:
    if world.size == 1:
        raise UserError("--fsdp splits networks among processes, and there is one: give --gpus, or leave it out")
    if config.implementation == "triton":
        raise UserError("--fsdp trains by PyTorch, not by --implementation triton: leave one of them out")
    if config.optimizer == "lars":
        raise UserError("--fsdp cannot take --optimizer lars, which needs whole tensors: take adamw or sgd")
    if precision.name == "fp16":
        raise UserError("--fsdp cannot scale losses as float16 needs: give --precision bf16 or fp32")


def _on(device: torch.device, network: MultiCropWrapper) -> MultiCropWrapper:
    # Parameters without memory, of which a plan is made, cannot be moved, not even to where they are.
    return network if device.type == "cpu" else network.to(device)


def _checkpoint(backbone: nn.Module, config: TrainConfig) -> None:
    if not isinstance(backbone, VisionTransformer):
        raise UserError(
            f"--checkpointing {config.checkpointing} is for vit_*, not {config.arch}: leave it out, or lower "
            "--batch_size_per_gpu"
        )
    if config.compile and config.checkpointing == "attention":
        raise UserError("--compile takes blocks as a whole: give --checkpointing block or none")
    backbone.set_checkpointing(config.checkpointing)


def _compile(student: nn.Module, teacher: nn.Module, arch: str) -> None:
    for backbone in (student, teacher):
        if not isinstance(backbone, VisionTransformer):
            raise UserError(f"--compile is for vit_*, not {arch}: leave it out")
        backbone.compile_blocks()
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"--compile needs a C++ compiler, and {compiler} is not there: install g++, or leave it out")


def initial_network(config: TrainConfig) -> MultiCropWrapper:
    """The student before its first step, its weights drawn from the seed."""
    torch.manual_seed(config.seed)
    return _network(config, config.drop_path_rate, config.norm_last_layer)


def untrained_backbone(config: TrainConfig) -> nn.Module:
    """The backbone before its first step, on the CPU, to be measured."""
    backbone = initial_network(config).backbone
    if isinstance(backbone, VisionTransformer):
        backbone.set_implementation(config.implementation)
    return backbone


def _network(config: TrainConfig, drop_path_rate: float, norm_last_layer: bool) -> MultiCropWrapper:
    backbone = build_backbone(
        config.arch,
        patch_size=config.patch_size,
        image_size=config.global_size,
        drop_path_rate=drop_path_rate,
    )
    sizes = [config.global_size, config.local_size] if config.local_crops_number else [config.global_size]
    width = embedding_width(backbone, sizes, config.arch)
    head = DINOHead(width, config.out_dim, config.use_bn_in_head, norm_last_layer, hidden_dim=config.head_hidden_dim)
    return MultiCropWrapper(backbone, head)


@dataclass(frozen=True)
class Schedules:
    """Per-step values over the whole training (float64 arrays of epochs * steps_per_epoch)."""

    lr: np.ndarray
    weight_decay: np.ndarray
    momentum: np.ndarray
    steps_per_epoch: int

    def at(self, step: int) -> StepValues:
        """Values at the global step `step`, counted from 0."""
        # Python floats: numpy scalars would end up in the optimiser's checkpoint.
        return StepValues(
            step // self.steps_per_epoch,
            float(self.lr[step]),
            float(self.weight_decay[step]),
            float(self.momentum[step]),
        )


def build_schedules(config: TrainConfig, steps_per_epoch: int, ranks: int = 1) -> Schedules:
    """The learning rate scales linearly with the pictures per optimiser step of all ranks (256 as given)."""
    peak = config.lr * config.batch_size * ranks / 256
    epochs = config.epochs
    return Schedules(
        lr=cosine_scheduler(peak, config.min_lr, epochs, steps_per_epoch, config.warmup_epochs),
        weight_decay=cosine_scheduler(config.weight_decay, config.weight_decay_end, epochs, steps_per_epoch),
        momentum=cosine_scheduler(config.momentum_teacher, 1.0, epochs, steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
    )
