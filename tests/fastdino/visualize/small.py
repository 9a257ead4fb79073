from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from fastdino.models.vision_transformer import VisionTransformer


def small_model(patch: int = 8, heads: int = 2) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=patch, embed_dim=8, depth=2, num_heads=heads).eval()


def photograph(width: int = 50, height: int = 40, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
