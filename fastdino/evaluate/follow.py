"""Objects followed through a video from the mask of its first frame, with nothing trained for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fastdino.data.normalize import normalize
from fastdino.errors import UserError
from fastdino.evaluate.label_propagation import LabelledFrame, LabelPropagation
from fastdino.evaluate.neighbours import check_finite
from fastdino.models.vision_transformer import VisionTransformer

Frame = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

# The longer side is cut to whole multiples, as in the original.
STEP = 64


class Follower:
    """Finds the objects of a video's first mask in its frames, which it is given one after another.

    Args:
        model: moved to `device` and evaluated.
        first_mask: objects' numbers in the first frame (H, W), 0 for the background.
        imsize: shorter side in pixels of what the model sees.
        last_frames, radius, topk: as in `LabelPropagation`; no more frames are remembered, and those as features.
        device: where the model runs.
    """

    def __init__(
        self,
        model: VisionTransformer,
        first_mask: Labels,
        *,
        imsize: int = 480,
        last_frames: int = 7,
        radius: int = 12,
        topk: int = 5,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model.eval().to(device)
        self.first_mask = first_mask
        self.device = device
        self._objects = np.union1d([0], first_mask).astype(np.uint8)
        self._seen_size = network_size(first_mask.shape[0], first_mask.shape[1], imsize)
        self._options = {"last_frames": last_frames, "radius": radius, "topk": topk}
        self._propagation: LabelPropagation | None = None

    @torch.no_grad()
    def mask_of(self, frame: Frame) -> Labels:
        """The mask (H, W) of the next frame (H, W, 3), RGB; of the first that which was given.

        Raises UserError for a frame of another size than the mask, and for features with NaN.
        """
        height, width = self.first_mask.shape
        if frame.shape[:2] != (height, width):
            raise UserError(
                f"a frame has {frame.shape[1]} x {frame.shape[0]} pixels and the first mask {width} x {height}: give "
                "frames and a mask of one size"
            )
        tokens = _tokens(self.model, frame, self._seen_size, self.device)
        if self._propagation is None:
            check_finite(tokens)
            labels = _one_hot(self.first_mask, self._objects, *tokens.shape[:2]).to(self.device)
            self._propagation = LabelPropagation(LabelledFrame(tokens, labels), **self._options)
            return self.first_mask
        chosen = strongest(self._propagation.label(tokens), self.model.patch_size)
        return _resized(self._objects[chosen.numpy()], width, height)


def network_size(height: int, width: int, imsize: int) -> tuple[int, int]:
    """Height and width of what the model sees: `imsize` on the shorter side, whole multiples of STEP on the other."""
    if height > width:
        return max(STEP, imsize * height // width // STEP * STEP), imsize
    return imsize, max(STEP, imsize * width // height // STEP * STEP)


def strongest(labels: Tensor, patch_size: int) -> Tensor:
    """Which label is strongest in each pixel: (h, w, L) -> (h * patch, w * patch) int64 on the CPU.

    Each label is stretched to reach from 0 to 1 in the picture first: what is carried on over many frames fades.
    """
    enlarged = F.interpolate(labels.permute(2, 0, 1)[None], scale_factor=patch_size, mode="bilinear")[0].flatten(1)
    low, high = enlarged.amin(dim=1, keepdim=True), enlarged.amax(dim=1, keepdim=True)
    # One that is the same everywhere stays as it is.
    stretched = torch.where(high > low, (enlarged - low) / (high - low), enlarged)
    return stretched.argmax(dim=0).view(labels.shape[0] * patch_size, -1).cpu()


def _tokens(model: VisionTransformer, frame: Frame, size: tuple[int, int], device: torch.device | str) -> Tensor:
    """Features of the patches of a frame (h, w, C), of unit length."""
    pixels = torch.from_numpy(frame.copy()).to(device).permute(2, 0, 1)[None].float()
    # Bilinear samples skip pixels from half the size on; above it they are the original's.
    much_smaller = frame.shape[0] >= 2 * size[0]
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=much_smaller).round_().clamp_(0, 255)
    (tokens,) = model.get_intermediate_layers(normalize(resized.to(torch.uint8)), 1)
    grid = tokens[0, 1:].unflatten(0, (size[0] // model.patch_size, size[1] // model.patch_size))
    return F.normalize(grid, dim=-1)


def _one_hot(mask: Labels, objects: Labels, rows: int, columns: int) -> Tensor:
    small = _resized(mask, columns, rows)
    return torch.from_numpy((small[..., None] == objects).astype(np.float32))


def _resized(mask: Labels, width: int, height: int) -> Labels:
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
