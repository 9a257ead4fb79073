"""A training step as facebookresearch/dino goes about it, in our words: what ours is measured against on CPUs.

Crops of equal size together, attention with its matrix, prototypes through torch's own weight normalisation, a
log-softmax for every pair of views, clipping that asks for a number of each parameter, the teacher parameter by
parameter.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu_proofs.original_backbone import OriginalBackbone
from fastdino import DINOHead, VisionTransformer
from fastdino.optim import cancel_gradients_last_layer, get_params_groups
from fastdino.train.update import StepValues

STUDENT_TEMP, CENTER_MOMENTUM = 0.1, 0.9


def original_loss(student: Tensor, teacher: Tensor, center: Tensor, ncrops: int, tau_s: float, tau_t: float) -> Tensor:
    """A log-softmax for every pair of views."""
    crops = (student / tau_s).chunk(ncrops)
    targets = ((teacher - center) / tau_t).softmax(dim=-1).chunk(2)
    terms = [
        -(target * crop.log_softmax(dim=-1)).sum(dim=-1).mean()
        for i, target in enumerate(targets)
        for v, crop in enumerate(crops)
        if v != i
    ]
    return sum(terms, torch.zeros(())) / len(terms)


class OriginalNetwork(nn.Module):
    """Backbone and head with the parameters of ours, in the same order."""

    def __init__(self, backbone: VisionTransformer, head: DINOHead) -> None:
        super().__init__()
        self.backbone, self.mlp = OriginalBackbone(backbone), head.mlp
        out_dim, width = head.last_layer.weight_v.shape
        linear = nn.Linear(width, out_dim, bias=False)
        linear.weight.data.copy_(head.last_layer.weight_v.data)
        with warnings.catch_warnings():
            # Deprecated, and what the original uses.
            warnings.simplefilter("ignore")
            self.last_layer = nn.utils.weight_norm(linear)
        cast(Tensor, self.last_layer.weight_g).data.fill_(1)
        cast(nn.Parameter, self.last_layer.weight_g).requires_grad = False

    def forward(self, crops: Sequence[Tensor]) -> Tensor:
        groups = groupby(crops, lambda crop: crop.shape[-1])
        features = torch.cat([self.backbone(torch.cat(list(group))) for _, group in groups])
        return self.last_layer(F.normalize(self.mlp(features), dim=-1))


class OriginalStep:
    """Student, teacher, center and optimiser, and a step of them."""

    def __init__(self, student: OriginalNetwork, teacher: OriginalNetwork, ncrops: int) -> None:
        self.student, self.teacher, self.ncrops = student, teacher.requires_grad_(False), ncrops
        self.center = torch.zeros(1, student.last_layer.out_features)
        self.optimizer = torch.optim.AdamW(get_params_groups(student))

    def __call__(self, crops: Sequence[Tensor], values: StepValues, teacher_temp: float, clip: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = values.lr
        self.optimizer.param_groups[0]["weight_decay"] = values.weight_decay
        teacher_output = self.teacher(crops[:2])
        student_output = self.student(crops)
        loss = original_loss(student_output, teacher_output, self.center, self.ncrops, STUDENT_TEMP, teacher_temp)
        self.center = self.center * CENTER_MOMENTUM + teacher_output.mean(dim=0, keepdim=True) * (1 - CENTER_MOMENTUM)
        if not math.isfinite(loss.item()):
            raise ArithmeticError("the loss is no number")
        self.optimizer.zero_grad()
        loss.backward()
        self._clip(clip)
        cancel_gradients_last_layer(values.epoch, self.student, 1)
        self.optimizer.step()
        with torch.no_grad():
            for ours, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                ours.data.mul_(values.momentum).add_((1 - values.momentum) * theirs.detach().data)
        return loss.item()

    def _clip(self, clip: float) -> None:
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                coefficient = clip / (parameter.grad.data.norm(2).item() + 1e-6)
                if coefficient < 1:
                    parameter.grad.data.mul_(coefficient)
