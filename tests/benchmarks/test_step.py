"""What the step is measured against takes the same step."""

from __future__ import annotations

import torch

from benchmarks.original_step import OriginalNetwork, OriginalStep
from fastdino import TrainConfig
from fastdino.train.build import build_trainee
from fastdino.train.step import StepValues, train_step


def test_the_originals_step_and_ours_are_the_same() -> None:
    config = TrainConfig(
        arch="vit_tiny", patch_size=8, out_dim=64, head_hidden_dim=32, local_crops_number=2, drop_path_rate=0.0
    )
    ours, others = (build_trainee(config, torch.device("cpu")) for _ in range(2))
    student, teacher = (OriginalNetwork(n.backbone, n.head) for n in (others.student, others.teacher))
    original = OriginalStep(student, teacher, ncrops=4)
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        crops = [torch.randn(3, 3, size, size, generator=generator) for size in (16, 16, 8, 8)]
        values = StepValues(number, lr=1e-4, weight_decay=0.04, momentum=0.9)
        loss = train_step(ours, [crops], values, 0.3, 1).loss.item()
        # Float32 in another order of sums; AdamW amplifies it where a gradient is near 0.
        torch.testing.assert_close(loss, original(crops, values, 0.04, 0.3), rtol=1e-4, atol=0)
    parameters = zip(ours.teacher.parameters(), original.teacher.parameters(), strict=True)
    for mine, theirs in ((a.flatten(), b.flatten()) for a, b in parameters):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(ours.dino_loss.center, original.center, rtol=1e-4, atol=1e-5)
