"""Settings with which two CPU cores learn something visible in minutes; docs/demo.md tells what mattered."""

from __future__ import annotations

from fastdino.config import TrainConfig


def demo_preset(data_path: str, output_dir: str, seed: int, num_workers: int) -> TrainConfig:
    """The demo's training run. Every value that differs from the defaults was chosen by benchmarks/demo_study.py."""
    return TrainConfig(
        arch="resnet_small",
        out_dim=256,
        head_hidden_dim=256,
        momentum_teacher=0.97,
        warmup_teacher_temp=0.025,
        teacher_temp=0.025,
        batch_size_per_gpu=32,
        epochs=20,
        freeze_last_layer=0,
        lr=0.012,
        warmup_epochs=1,
        min_lr=1e-5,
        local_crops_number=2,
        local_crops_scale=(0.15, 0.5),
        global_size=48,
        local_size=24,
        color_jitter=(0.4, 0.4, 0.3, 0.2),
        saveckp_freq=0,
        data_path=data_path,
        output_dir=output_dir,
        seed=seed,
        num_workers=num_workers,
    )
