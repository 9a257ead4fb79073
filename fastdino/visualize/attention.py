"""What the CLS token of the last layer attends to: objects, if training went well (paper, figures 1 and
4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

from fastdino.config import AttentionConfig
from fastdino.data.normalize import normalize
from fastdino.data.reading import UnreadableImage, read_image, reason_of
from fastdino.data.sources import FolderSource
from fastdino.errors import UserError
from fastdino.evaluate.features import none_readable, progress_bar, report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.files import write_atomically
from fastdino.models.pretrained import load_backbone
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.visualize.pictures import colour_map, enlarge, outline, overlay, picture_grid, stretch

SHEET_SIDE = 240
POSTER_SIDE = 212
POSTER_GAP = 4
SHEET_NAME = "attention.png"


@torch.no_grad()
def attention_maps(model: nn.Module, image: Tensor) -> Tensor:
    """Attention of the CLS token to every patch in the last layer: one map a head.

    Args:
        model: a vision transformer of fastdino, on the image's device.
        image: normalised picture (3, H, W), both sides multiples of the patch.

    Returns (heads, H / patch, W / patch) float32 on the CPU. A map sums to 1 minus what CLS keeps for itself.
    """
    transformer = vision_transformer(model)
    rows, columns = (side // transformer.patch_size for side in image.shape[-2:])
    attention = transformer.last_attention_rows(image[None])
    return attention[0, :, 0, 1:].reshape(-1, rows, columns).float().cpu()


def mass_mask(attention: Tensor, threshold: float) -> Tensor:
    """The smallest set of patches that holds the share `threshold` of a map's sum: bool (h, w) for a map (h,
    w).

    Patches are dropped from the weakest on, as long as the dropped ones' share is at most 1 - threshold.
    """
    values, order = attention.flatten().double().sort(stable=True)
    kept = (values / values.sum()).cumsum(0) > 1 - threshold
    return torch.zeros_like(kept).scatter_(0, order, kept).reshape(attention.shape)


def vision_transformer(model: nn.Module) -> VisionTransformer:
    """`model` itself. Raises UserError for an architecture that keeps no attention of a CLS token."""
    if isinstance(model, VisionTransformer):
        return model
    raise UserError(
        f"{type(model).__name__} has no attention maps: they exist for vit_tiny, vit_small, vit_base and vit_large"
    )


def prepare(picture: Image.Image, image_size: tuple[int, ...], patch: int) -> Image.Image:
    """Resize to `image_size` (height and width, or the shorter side alone) and cut to whole patches.

    Raises UserError where that leaves less than one patch or `image_size` is of another form.
    """
    if len(image_size) not in (1, 2) or min(image_size) < patch:
        given = " ".join(map(str, image_size))
        raise UserError(f"--image_size is {given}: give height and width, each at least one patch of {patch} pixels")
    resized = transforms.resize(picture, list(image_size))
    return resized.crop((0, 0, resized.width - resized.width % patch, resized.height - resized.height % patch))


@dataclass(frozen=True)
class AttentionPictures:
    """A picture, what each head attends to in it, and the heads' mean.

    `maps` (heads, h, w) are numbers; all pictures are as large as `picture`. `masks` are the patches that
    hold most of a head's attention.
    """

    picture: Image.Image
    maps: npt.NDArray[np.float32]
    heads: list[Image.Image]
    masks: list[Image.Image]
    mean: Image.Image
    overlay: Image.Image

    def sheet(self) -> Image.Image:
        """All of it on one labelled sheet: picture, mean and overlay above, a row of heads and of masks
        below.
        """
        count = len(self.heads)
        columns = max(3, min(count, 6))
        rows = [[self.picture, self.mean, self.overlay]]
        labels = [["picture", "mean of heads", "mean over picture"]]
        for first in range(0, count, columns):
            part = range(first, min(first + columns, count))
            rows += [[self.heads[head] for head in part], [self.masks[head] for head in part]]
            labels += [[f"head {head}" for head in part], [f"mask of head {head}" for head in part]]
        return picture_grid(rows, SHEET_SIDE, labels)

    def poster(self) -> Image.Image:
        """For a page: picture, overlay and mean side by side, the heads small below them, without words."""
        columns = 3 if len(self.heads) <= 3 else 6
        # Whole heads at both sizes: three large tiles and their gaps are as wide as six small ones and
        # theirs.
        small = POSTER_SIDE if columns == 3 else (POSTER_SIDE - POSTER_GAP) // 2
        rows = [(POSTER_SIDE, [self.picture, self.overlay, self.mean])]
        rows += [(small, self.heads[first : first + columns]) for first in range(0, len(self.heads), columns)]
        size = (
            3 * POSTER_SIDE + 2 * POSTER_GAP,
            sum(side for side, _ in rows) + POSTER_GAP * (len(rows) - 1),
        )
        canvas = Image.new("RGB", size)
        top = 0
        for side, pictures in rows:
            for column, picture in enumerate(pictures):
                canvas.paste(picture.resize((side, side)), (column * (side + POSTER_GAP), top))
            top += side + POSTER_GAP
        return canvas


def draw_attention(
    model: nn.Module,
    picture: Image.Image,
    *,
    image_size: tuple[int, ...] = (480, 480),
    threshold: float = 0.6,
    device: torch.device | str = "cpu",
) -> AttentionPictures:
    """Attention maps of an RGB picture by a model on `device`. Raises UserError as `prepare` and
    `vision_transformer` do.
    """
    patch = vision_transformer(model).patch_size
    picture = prepare(picture, image_size, patch)
    pixels = torch.from_numpy(np.array(picture).transpose(2, 0, 1))
    maps = attention_maps(model, normalize(pixels.to(device)))
    mean = maps.mean(0)
    # A single patch often draws far more than all others (Darcet et al. 2024) and would leave the overlay
    # dark.
    visible = stretch(mean.clamp(max=float(mean.flatten().quantile(0.99))).numpy())
    return AttentionPictures(
        picture,
        maps.numpy(),
        [_squares(stretch(values.numpy()), patch) for values in maps],
        [outline(picture, enlarge(mass_mask(values, threshold).numpy(), patch).astype(bool)) for values in maps],
        _squares(stretch(mean.numpy()), patch),
        overlay(picture, visible),
    )


def _squares(values: npt.NDArray[np.float64], patch: int) -> Image.Image:
    small = colour_map(values)
    return small.resize((small.width * patch, small.height * patch), Image.Resampling.NEAREST)


def save_attention(pictures: AttentionPictures, folder: Path, threshold: float) -> list[Path]:
    """Write the pictures under the original's names, and the mean, the overlay and the sheet. Returns the
    paths.
    """
    named = {"img": pictures.picture, "attn-mean": pictures.mean, "overlay-mean": pictures.overlay}
    for head, (values, mask) in enumerate(zip(pictures.heads, pictures.masks, strict=True)):
        named[f"attn-head{head}"] = values
        named[f"mask_th{threshold}_head{head}"] = mask
    named[Path(SHEET_NAME).stem] = pictures.sheet()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in named.items():
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        write_atomically(folder / f"{name}.png", buffer.getvalue())
        paths.append(folder / f"{name}.png")
    return paths


def run(config: AttentionConfig) -> list[Path]:
    """The command `fastdino attention`: a picture's maps into `output_dir`, or a folder's, each into its own
    subfolder.

    Returns the paths written. Raises UserError for everything that the user can mend.
    """
    if not 0 < config.threshold <= 1:
        raise UserError(f"--threshold is {config.threshold}: give a share of the attention above 0 and up to 1")
    if not config.image_path:
        raise UserError("give --image_path: a picture, or a folder of pictures")
    targets = _targets(Path(config.image_path), Path(config.output_dir))
    console = Console()
    backbone = load_backbone(
        config.pretrained_weights or None,
        arch=config.arch,
        patch_size=config.patch_size,
        checkpoint_key=config.checkpoint_key,
    )
    vision_transformer(backbone.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone.model.to(device)
    skipped: dict[str, str] = {}
    paths: list[Path] = []
    with progress_bar(console) as progress:
        for name, read, folder in progress.track(targets, description="Attention"):
            try:
                picture = read_image(read())
            except UnreadableImage as error:
                skipped[name] = str(error)
                continue
            except OSError as error:
                skipped[name] = reason_of(error)
                continue
            drawn = draw_attention(
                backbone.model,
                picture,
                image_size=config.image_size,
                threshold=config.threshold,
                device=device,
            )
            with writing_to(folder, "--output_dir"):
                paths += save_attention(drawn, folder, config.threshold)
    if not paths:
        raise UserError(none_readable(skipped))
    report_skipped(console, skipped)
    sheet = next(path for path in paths if path.name == SHEET_NAME)
    console.print(f"{len(paths)} files written; look at {sheet} first", markup=False, soft_wrap=True)
    return paths


def _targets(image_path: Path, output_dir: Path) -> list[tuple[str, Callable[[], bytes], Path]]:
    """(name, function that reads it, folder for its maps) of every picture."""
    if image_path.is_file():
        return [(str(image_path), image_path.read_bytes, output_dir)]
    if not image_path.exists():
        raise UserError(f"there is no picture or folder {image_path}: give --image_path one that exists")
    source = FolderSource(image_path)
    names = [Path(source.name(index)) for index in range(len(source))]
    stems = Counter(name.with_suffix("") for name in names)
    return [
        # cat.jpg and cat.png beside each other keep their endings, or one would overwrite the other.
        (str(name), partial(source.read, index), output_dir / (name if stems[stem] > 1 else stem))
        for index, name in enumerate(names)
        for stem in [name.with_suffix("")]
    ]
