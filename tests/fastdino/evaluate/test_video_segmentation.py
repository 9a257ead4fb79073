from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fastdino.config import VideoSegmentationConfig
from fastdino.errors import UserError
from fastdino.evaluate import video_segmentation
from fastdino.evaluate.follow import Follower, Frame, Labels, network_size, strongest
from fastdino.evaluate.videos import default_palette, read_mask
from fastdino.models.pretrained import Backbone
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.video import write_video

HEIGHT, WIDTH = 64, 130


def moving(number: int) -> tuple[Frame, Labels]:
    """A red square that moves four pixels a frame and a blue one at rest, on a green ground, and their mask."""
    frame = np.random.default_rng(number).integers(0, 30, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame[..., 1] += 90
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for value, channel, top, left in ((1, 0, 16, 20 + 4 * number), (3, 2, 36, 90)):
        place = slice(top, top + 20), slice(left, left + 24)
        mask[place] = value
        frame[place] = 20
        frame[(*place, channel)] = 220
    return frame, mask


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    """Little more than a random projection of each patch."""
    torch.manual_seed(0)
    network = VisionTransformer(img_size=[64], patch_size=8, embed_dim=32, depth=1, num_heads=2).eval()
    network.requires_grad_(False).pos_embed.zero_()
    return network


def test_objects_are_followed(model: VisionTransformer) -> None:
    follower = Follower(model, moving(0)[1], imsize=64, last_frames=3, radius=4)
    for number in range(6):
        frame, truth = moving(number)
        mask = follower.mask_of(frame)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1, 3}
        for value in (1, 3):
            # Patches of 8 pixels round a square of 20 x 24 by up to half a patch on each side.
            assert np.sum((mask == value) & (truth == value)) > 0.6 * np.sum((mask == value) | (truth == value))


def test_the_steps_are_the_originals(model: VisionTransformer) -> None:
    """Two frames: one propagation between the features of whole patches."""
    frames, mask = [moving(number)[0] for number in range(2)], moving(0)[1]
    follower = Follower(model, mask, imsize=64, radius=0, topk=5)
    _, result = map(follower.mask_of, frames)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tokens = []
    for frame in frames:
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        # 130 columns at 64 rows are cut to 128.
        small = F.interpolate(pixels, (64, 128), mode="bilinear").round() / 255
        features = model.get_intermediate_layers((small - mean[:, None, None]) / std[:, None, None])[0][0, 1:]
        tokens.append(F.normalize(features, dim=1))
    small_mask = np.asarray(Image.fromarray(mask).resize((16, 8), Image.Resampling.NEAREST)).ravel()
    one_hot = torch.from_numpy((small_mask[:, None] == np.array([0, 1, 3])).astype(np.float32))
    affinity = (tokens[1] @ tokens[0].T / 0.1).exp()
    affinity[affinity < affinity.topk(5).values[:, -1:]] = 0
    carried = (affinity / affinity.sum(dim=1, keepdim=True) @ one_hot).T.view(1, 3, 8, 16)
    large = F.interpolate(carried, scale_factor=8, mode="bilinear")[0]
    for channel in large:
        channel -= channel.min().clone()
        channel /= channel.max().clone()
    numbers = np.array([0, 1, 3], dtype=np.uint8)[large.argmax(dim=0).numpy()]
    expected = np.asarray(Image.fromarray(numbers).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
    # Two labels of equal strength may fall either way at the seam.
    assert np.mean(result != expected) < 0.002


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    # The original's read_frame: 480 on the shorter side, the other cut to a multiple of 64.
    [(480, 854, (480, 832)), (480, 910, (480, 896)), (854, 480, (832, 480)), (100, 100, (480, 448))],
)
def test_sizes_are_the_originals(height: int, width: int, expected: tuple[int, int]) -> None:
    assert network_size(height, width, 480) == expected
    assert network_size(50, 50, 48) == (48, 64)


def test_a_label_everywhere_is_everywhere() -> None:
    labels = torch.stack((torch.zeros(2, 3), torch.ones(2, 3)), dim=-1)
    assert bool((strongest(labels, 4) == 1).all())


def test_colours_are_those_of_pascal_voc() -> None:
    palette = np.frombuffer(default_palette(), dtype=np.uint8).reshape(256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    assert {number: tuple(palette[number].tolist()) for number in known} == known
    assert tuple(palette[255].tolist()) == (224, 224, 192)


def save_mask(mask: Labels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask, mode="P")
    image.putpalette([0, 0, 0, 10, 20, 30] + [7] * 762)
    image.save(path)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two videos in DAVIS's layout: five frames that move, three at rest."""
    root = tmp_path / "davis"
    for name, count in (("moving", 5), ("still", 3)):
        (root / "JPEGImages" / "480p" / name).mkdir(parents=True)
        for number in range(count):
            frame, mask = moving(number if name == "moving" else 0)
            Image.fromarray(frame).save(root / "JPEGImages" / "480p" / name / f"{number:05}.jpg", quality=95)
            save_mask(mask, root / "Annotations" / "480p" / name / f"{number:05}.png")
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("moving\nstill\n\n")
    return root


def settings(path: Path, out: Path, **others: Any) -> VideoSegmentationConfig:
    return VideoSegmentationConfig(
        data_path=str(path),
        output_dir=str(out),
        **{"arch": "vit_tiny", "patch_size": 8, "imsize": 64, "size_mask_neighborhood": 4, **others},
    )


def test_run_on_davis(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    out = tmp_path / "out"
    result = video_segmentation.run(settings(davis, out, output=str(tmp_path / "numbers.json")))
    scores = result["video_segmentation"]
    by_object = [scores["j"]["mean"] for video in result["videos"].values() for scores in video.values()]
    assert set(result["videos"]) == {"moving", "still"}
    assert set(result["videos"]["still"]) == {"1", "3"}
    assert scores["j"]["mean"] == pytest.approx(np.mean(by_object))
    assert scores["j"]["mean"] > 50
    # The middle frame of the still video, measured again from its file.
    ours, truth = read_mask(out / "still" / "00001.png"), moving(0)[1]
    expected = np.sum((ours.labels == 1) & (truth == 1)) / np.sum((ours.labels == 1) | (truth == 1))
    assert result["videos"]["still"]["1"]["j"]["mean"] == pytest.approx(100 * expected)
    assert ours.palette[3:6] == bytes((10, 20, 30))
    assert np.array_equal(read_mask(out / "moving" / "00000.png").labels, moving(0)[1])
    assert len(list((out / "moving").iterdir())) == 5
    assert json.loads((tmp_path / "numbers.json").read_text()) == result
    assert f"J&F {scores['j_and_f']:.1f}" in capsys.readouterr().out


def test_run_on_own_frames(davis: Path, tmp_path: Path) -> None:
    # Grey masks of one object are usual: 0 and 255.
    Image.fromarray(np.where(moving(0)[1] == 1, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    frames = davis / "JPEGImages" / "480p" / "moving"
    torch.manual_seed(0)
    result = video_segmentation.run(settings(frames, tmp_path / "out", first_mask=str(tmp_path / "mask.png")))
    assert result == {"video_segmentation": None, "videos": {"moving": {}}}
    mask = read_mask(tmp_path / "out" / "moving" / "00004.png").labels
    assert set(np.unique(mask)) == {0, 255}
    frame_mask = moving(4)[1] == 1
    assert np.sum((mask == 255) & frame_mask) > 0.5 * np.sum((mask == 255) | frame_mask)


def test_run_on_a_movie(tmp_path: Path, model: VisionTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_segmentation, "backbone_of", lambda _: Backbone(model, "vit", 8, 64, 32))
    with write_video(tmp_path / "squares.mp4", Fraction(5)) as add:
        for number in range(4):
            add(Image.fromarray(moving(number)[0]))
    save_mask(moving(0)[1], tmp_path / "mask.png")
    video_segmentation.run(settings(tmp_path / "squares.mp4", tmp_path / "out", first_mask=str(tmp_path / "mask.png")))
    names = sorted(path.name for path in (tmp_path / "out" / "squares").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png"]
    mask, truth = read_mask(tmp_path / "out" / "squares" / "00003.png").labels, moving(3)[1]
    assert np.sum((mask == 1) & (truth == 1)) > 0.5 * np.sum((mask == 1) | (truth == 1))


def test_what_cannot_be_used(
    davis: Path, tmp_path: Path, model: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_segmentation, "backbone_of", lambda _: Backbone(model, "vit", 8, 64, 32))
    frames = davis / "JPEGImages" / "480p" / "moving"
    mask = davis / "Annotations" / "480p" / "moving" / "00000.png"
    for others, message in (
        ({"topk": 0}, "--topk"),
        ({"imsize": 7}, "--imsize"),
        ({"n_last_frames": -1}, "--n_last_frames"),
        ({"video_list": "none.txt"}, "--video_list"),
    ):
        with pytest.raises(UserError, match=message):
            video_segmentation.run(settings(davis, tmp_path, **others))
    with pytest.raises(UserError, match="no JPEGImages"):
        video_segmentation.run(settings(frames, tmp_path))
    with pytest.raises(UserError, match="--first_mask"):
        video_segmentation.run(settings(frames, tmp_path, first_mask=str(tmp_path / "none.png")))
    with pytest.raises(UserError, match="no frames"):
        video_segmentation.run(settings(tmp_path / "nowhere", tmp_path, first_mask=str(mask)))
    Image.fromarray(moving(0)[0]).save(tmp_path / "picture.png")
    with pytest.raises(UserError, match="in mode RGB, no mask"):
        video_segmentation.run(settings(frames, tmp_path, first_mask=str(tmp_path / "picture.png")))
    save_mask(np.zeros_like(moving(0)[1]), tmp_path / "empty.png")
    with pytest.raises(UserError, match="marks no object"):
        video_segmentation.run(settings(frames, tmp_path, first_mask=str(tmp_path / "empty.png")))
    save_mask(moving(0)[1][:-1], tmp_path / "small.png")
    with pytest.raises(UserError, match="of one size"):
        video_segmentation.run(settings(frames, tmp_path, first_mask=str(tmp_path / "small.png")))
    (frames / "00003.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"00003\.jpg cannot be read"):
        video_segmentation.run(settings(davis, tmp_path / "out"))
    mask.unlink()
    with pytest.raises(UserError, match="moving has no first mask"):
        video_segmentation.run(settings(davis, tmp_path))
