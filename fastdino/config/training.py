"""The settings of a training run."""

from __future__ import annotations

import dataclasses

from fastdino.config.fields import OTHER, option

MODEL = "model"
TEMPERATURE = "teacher temperature"
TRAINING = "training"
CROPS = "multi-crop"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run. Names and defaults are those of facebookresearch/dino; what it lacks is marked (fastdino)."""

    arch: str = option(
        "vit_small",
        "Backbone: vit_tiny, vit_small, vit_base, vit_large, resnet_small (for small pictures), or any torchvision or "
        "timm model by name.",
        group=MODEL,
    )
    patch_size: int = option(
        16,
        "Side of a patch in pixels (vit_* only). Smaller patches learn better features and need more memory.",
        group=MODEL,
    )
    out_dim: int = option(
        65536,
        "Prototypes in DINO's head. Large sets like many (65536), a few thousand pictures few.",
        group=MODEL,
    )
    norm_last_layer: bool = option(
        True,
        "Keep the prototypes at length 1. False can give better features, and is less stable.",
        group=MODEL,
    )
    momentum_teacher: float = option(
        0.996,
        "Share of the teacher that each step keeps; rises to 1 by cosine. Higher with small batches (0.9995 at 256).",
        group=MODEL,
    )
    use_bn_in_head: bool = option(False, "BatchNorm in the head.", group=MODEL)
    head_hidden_dim: int = option(
        2048, "Width of the head's hidden layers; a small backbone trains faster with less. (fastdino)", group=MODEL
    )

    warmup_teacher_temp: float = option(
        0.04, "Teacher temperature at the start. Lower it if the loss does not fall.", group=TEMPERATURE
    )
    teacher_temp: float = option(
        0.04,
        "Teacher temperature after its warm-up. Above 0.07 training is mostly unstable.",
        group=TEMPERATURE,
    )
    warmup_teacher_temp_epochs: int = option(0, "Epochs over which the teacher temperature rises.", group=TEMPERATURE)

    use_fp16: bool = option(
        True,
        "Mixed precision: bfloat16 where the GPU has it, else float16 with loss scaling; on CPUs bfloat16 where it is "
        "faster.",
        group=TRAINING,
    )
    weight_decay: float = option(0.04, "Weight decay at the start.", group=TRAINING)
    weight_decay_end: float = option(0.4, "Weight decay at the end, reached by cosine.", group=TRAINING)
    clip_grad: float = option(
        3.0, "Largest L2 norm of each parameter tensor's gradient; 0 switches clipping off.", group=TRAINING
    )
    batch_size_per_gpu: int = option(64, "Pictures that one device handles at a time.", group=TRAINING)
    epochs: int = option(100, "Passes over the pictures.", group=TRAINING)
    freeze_last_layer: int = option(
        1,
        "Epochs during which the prototypes stay fixed. Raise it if the loss does not fall.",
        group=TRAINING,
    )
    lr: float = option(
        0.0005,
        "Peak learning rate for 256 pictures a step; scaled linearly with the real number.",
        group=TRAINING,
    )
    warmup_epochs: int = option(10, "Epochs over which the learning rate rises from 0.", group=TRAINING)
    min_lr: float = option(1e-6, "Learning rate at the end, reached by cosine.", group=TRAINING)
    optimizer: str = option(
        "adamw",
        "adamw for transformers, sgd or lars for convnets.",
        group=TRAINING,
        choices=("adamw", "sgd", "lars"),
    )
    drop_path_rate: float = option(0.1, "Stochastic depth of the student's last block.", group=TRAINING)
    precision: str = option(
        "auto",
        "Force one precision; auto follows --use_fp16. (fastdino)",
        group=TRAINING,
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    implementation: str = option(
        "auto",
        "What computes loss, optimiser step, teacher and normalisation: Triton kernels, PyTorch, or its plainest code; "
        "auto takes Triton on GPUs unless `fastdino doctor` found it wanting there. (fastdino)",
        group=TRAINING,
        choices=("auto", "triton", "torch", "reference"),
    )
    checkpointing: str = option(
        "none",
        "What of the student runs again in the backward pass instead of keeping what it computed: the attention of "
        "each block, or each block, for less memory and more time (vit_* only). (fastdino)",
        group=TRAINING,
        choices=("none", "attention", "block"),
    )
    compile: bool = option(
        False,
        "Compile the blocks with torch.compile, which takes a minute at the start and pays on long runs (vit_* only). "
        "(fastdino)",
        group=TRAINING,
    )
    accumulation_steps: int = option(
        1,
        "Batches whose gradients make one optimiser step; EMA, center and schedules move once per step. (fastdino)",
        group=TRAINING,
    )

    global_crops_scale: tuple[float, float] = option(
        (0.4, 1.0), "Range of the two large crops' area, as a share of the picture's.", group=CROPS
    )
    local_crops_number: int = option(8, "Small crops per picture; with 0 use --global_crops_scale 0.14 1.", group=CROPS)
    local_crops_scale: tuple[float, float] = option(
        (0.05, 0.4), "Range of the small crops' area, as a share of the picture's.", group=CROPS
    )
    global_size: int = option(224, "Side of the large crops in pixels. (fastdino)", group=CROPS)
    local_size: int = option(96, "Side of the small crops in pixels. (fastdino)", group=CROPS)
    color_jitter: tuple[float, float, float, float] = option(
        (0.4, 0.4, 0.2, 0.1),
        "Strength of brightness, contrast, saturation and hue jitter. (fastdino)",
        group=CROPS,
    )

    data_path: str = option(
        "/path/to/imagenet/train/",
        "Folder of pictures, flat or nested. Class folders are used to measure, never to train.",
        group=OTHER,
    )
    output_dir: str = option(
        ".",
        "Folder for checkpoint.pth, log.txt, config.json, report.html and results.json; a run found there goes on.",
        group=OTHER,
    )
    saveckp_freq: int = option(20, "Keep an extra checkpoint every so many epochs; 0 keeps none.", group=OTHER)
    save_minutes: float = option(
        30.0, "Write checkpoint.pth within epochs too, every so many minutes; 0: not by time. (fastdino)", group=OTHER
    )
    save_steps: int = option(
        0, "Write checkpoint.pth within epochs too, every so many steps; 0: not by steps. (fastdino)", group=OTHER
    )
    keep_checkpoints: int = option(
        2, "Newest checkpoints kept; if one is damaged, a run goes on from the one before. (fastdino)", group=OTHER
    )
    seed: int = option(0, "Seed of the weights, the order of the pictures and every crop.", group=OTHER)
    num_workers: int = option(
        10, "Most threads that prepare crops; never more than the machine has cores.", group=OTHER
    )
    dist_url: str = option(
        "env://", "Where the processes of several machines meet: env:// or tcp://host:port.", group=OTHER
    )
    dist_timeout: int = option(
        600,
        "Seconds that a process waits for the others before the run ends and names the one that is missing; longer "
        "than the disk takes for a checkpoint. (fastdino)",
        group=OTHER,
    )
    local_rank: int = option(0, "Set by launchers that do not set LOCAL_RANK.", group=OTHER)
    gpus: int = option(
        1, "Processes to start on this machine, one a GPU; without GPUs they share the CPU. (fastdino)", group=OTHER
    )
    fsdp: bool = option(
        False,
        "Split both networks among the processes (FSDP2), for models that do not fit one GPU; slower where they do. "
        "(fastdino)",
        group=OTHER,
    )

    @property
    def batch_size(self) -> int:
        """Pictures per optimiser step of one process."""
        return self.batch_size_per_gpu * self.accumulation_steps

    @property
    def ncrops(self) -> int:
        """Crops per picture, the two global ones included."""
        return self.local_crops_number + 2


def training_of(config: TrainConfig) -> TrainConfig:
    """The settings of the training alone, out of those of a command that takes more."""
    return TrainConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)})
