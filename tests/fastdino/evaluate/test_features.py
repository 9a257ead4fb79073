from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from fastdino.data.sources import Joined
from fastdino.errors import UserError
from fastdino.evaluate.features import extract_features, pixel_features, together


class Album:
    """Pictures in memory; None cannot be read."""

    def __init__(self, pictures: list[Image.Image | None], labels: list[int] | None = None) -> None:
        self.files = [b"" if picture is None else png(picture) for picture in pictures]
        self.labels = labels or [0] * len(pictures)
        self.classes = ["all"]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        return self.files[index]

    def name(self, index: int) -> str:
        return f"{index}.png"

    def label(self, index: int) -> int:
        return self.labels[index]


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_transform_is_the_originals() -> None:
    picture = noise(300, 411)
    original = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    features = extract_features(nn.Flatten(), Album([picture]), image_size=224, num_workers=0).features
    assert torch.equal(features[0], original(picture).flatten())


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (2, 2), (100, 0)])
def test_order_labels_and_gaps(batch_size: int, num_workers: int) -> None:
    plain = [Image.new("RGB", (20, 30), (value, value, value)) for value in (0, 50, 100, 150, 200)]
    album = Album([plain[0], None, plain[1], plain[2], None, plain[3], plain[4]], [4, 9, 3, -1, 9, 2, 1])
    features = extract_features(nn.Flatten(), album, image_size=4, batch_size=batch_size, num_workers=num_workers)
    assert features.features.shape == (5, 48)
    assert features.features.dtype == torch.float32
    assert bool((features.features[:, 0].diff() > 0).all())
    assert features.labels.tolist() == [4, 3, -1, 2, 1]
    assert features.indices.tolist() == [0, 2, 3, 5, 6]
    assert features.skipped == {"1.png": "the file is empty", "4.png": "the file is empty"}
    assert features.labelled().indices.tolist() == [0, 2, 5, 6]


def test_a_cpu_passes_pictures_on_in_small_batches_and_in_order() -> None:
    sizes = []

    class Network(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            sizes.append(len(pictures))
            return pictures.mean(dim=(2, 3))

    grey = [Image.new("RGB", (8, 8), (value, value, value)) for value in range(0, 250, 12)]
    features = extract_features(Network(), Album([*grey]), image_size=224, batch_size=20, num_workers=0).features
    assert max(sizes) == 8
    assert sum(sizes) == len(grey) == 21
    assert bool((features.diff(dim=0) > 0).all())


def test_nothing_readable_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="none of the 3 pictures"):
        extract_features(nn.Flatten(), Album([None] * 3), num_workers=0)
    with pytest.raises(UserError, match="no pictures"):
        extract_features(nn.Flatten(), Album([]), num_workers=0)


def test_the_model_is_evaluated_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    album = Album([noise(8, 8)])
    first, second = (extract_features(model, album, image_size=8, num_workers=0).features for _ in range(2))
    assert torch.equal(first, second)
    assert model.training


def test_torchs_random_numbers_are_left_alone() -> None:
    state = torch.get_rng_state()
    extract_features(nn.Flatten(), Album([noise(8, 8)] * 3), image_size=8, batch_size=1, num_workers=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_pixels_see_the_same_crop() -> None:
    features = pixel_features(Album([Image.new("RGB", (64, 48), (124, 116, 104))]), size=8)
    assert features.features.shape == (1, 3 * 8 * 8)
    # ImageNet's mean colour, rounded to whole steps of 1/255, is at most half a step from zero.
    assert float(features.features.abs().max()) < 0.5 / 255 / 0.224


def test_features_of_two_sources_are_those_of_both_joined() -> None:
    albums = [Album([noise(20, 20, 0), None, noise(20, 20, 1)], [0, 0, 0]), Album([None, noise(20, 20, 2)], [0, 1])]
    parts = [extract_features(nn.Flatten(), album, image_size=8, num_workers=0) for album in albums]
    both = together(parts, [len(album) for album in albums])
    joined = extract_features(nn.Flatten(), Joined(albums), image_size=8, num_workers=0)
    assert torch.equal(both.features, joined.features)
    assert both.indices.tolist() == joined.indices.tolist() == [0, 2, 4]
    assert both.labels.tolist() == joined.labels.tolist() == [0, 0, 1]
    assert both.skipped.keys() == joined.skipped.keys()
