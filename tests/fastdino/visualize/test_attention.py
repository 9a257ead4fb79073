from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino.config import AttentionConfig
from fastdino.errors import UserError
from fastdino.models.vision_transformer import VisionTransformer
from fastdino.visualize import attention
from fastdino.visualize.attention import attention_maps, draw_attention, mass_mask, prepare


def small_model(patch: int = 8, heads: int = 2) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=patch, embed_dim=8, depth=2, num_heads=heads).eval()


def photograph(width: int = 50, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def settings(tmp_path: Path, **others: Any) -> AttentionConfig:
    output_dir = others.pop("output_dir", str(tmp_path / "maps"))
    return AttentionConfig(output_dir=output_dir, **({"arch": "vit_tiny", "image_size": (64, 48)} | others))


def test_maps_are_the_cls_row() -> None:
    model, image = small_model(), torch.randn(3, 32, 24)
    maps = attention_maps(model, image)
    full = model.get_last_selfattention(image[None])
    assert maps.shape == (2, 4, 3)
    # Row 0 is CLS, column 0 its attention to itself; patch (2, 1) is number 2 * 3 + 1.
    # One row alone is another product than all of them: some roundings of float32.
    assert maps[1, 2, 1] == pytest.approx(full[0, 1, 0, 1 + 7].item(), rel=1e-6)
    assert not maps.requires_grad


def test_mask_is_the_smallest_set_with_the_mass() -> None:
    values = torch.tensor([[0.05, 0.4], [0.3, 0.25]])
    assert mass_mask(values, 0.35).tolist() == [[False, True], [False, False]]
    assert mass_mask(values, 0.6).tolist() == [[False, True], [True, False]]
    assert mass_mask(values, 1.0).all()


@pytest.mark.parametrize("threshold", [0.1, 0.37, 0.6, 0.95])
def test_masks_hold_their_share_and_not_one_patch_more(threshold: float) -> None:
    values = torch.rand(9, 7, generator=torch.Generator().manual_seed(1)) * 3
    kept = values[mass_mask(values, threshold)].double()
    assert kept.sum() >= threshold * values.double().sum() > kept.sum() - kept.min()


def test_prepare_cuts_to_whole_patches() -> None:
    picture = photograph(100, 60)
    assert prepare(picture, (50, 70), 16).size == (64, 48)
    assert prepare(picture, (48,), 16).size == (80, 48)
    for bad in ((15, 480), (480, 480, 3)):
        with pytest.raises(UserError, match="--image_size"):
            prepare(picture, bad, 16)


def test_drawn_pictures_belong_together() -> None:
    drawn = draw_attention(small_model(heads=4), photograph(), image_size=(40, 48), threshold=0.5)
    assert drawn.maps.shape == (4, 5, 6)
    everything = [drawn.picture, drawn.mean, drawn.overlay, *drawn.heads, *drawn.masks]
    assert {picture.size for picture in everything} == {(48, 40)}
    strongest = np.unravel_index(drawn.maps[3].argmax(), (5, 6))
    assert drawn.heads[3].getpixel((int(strongest[1]) * 8, int(strongest[0]) * 8)) == (253, 231, 37)
    assert drawn.sheet().width > drawn.sheet().height / 2


def test_one_picture_into_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph().save(tmp_path / "photo.png")
    paths = attention.run(settings(tmp_path, image_path=str(tmp_path / "photo.png")))
    heads = [f"attn-head{head}.png" for head in range(3)] + [f"mask_th0.6_head{head}.png" for head in range(3)]
    expected = {"img.png", "attn-mean.png", "overlay-mean.png", "attention.png", *heads}
    assert {path.relative_to(tmp_path / "maps").as_posix() for path in paths} == expected
    assert Image.open(tmp_path / "maps" / "attn-head2.png").size == (48, 64)
    assert "attention.png" in capsys.readouterr().out


def test_a_folder_gives_a_subfolder_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "album" / "inner").mkdir(parents=True)
    for name in ("cat.png", "cat.bmp", "inner/dog.png"):
        photograph().save(tmp_path / "album" / name)
    (tmp_path / "album" / "broken.jpg").write_text("no picture")
    paths = attention.run(settings(tmp_path, image_path=str(tmp_path / "album")))
    folders = {path.parent.relative_to(tmp_path / "maps").as_posix() for path in paths}
    assert folders == {"cat.png", "cat.bmp", "inner/dog"}
    assert "broken.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "others", "message"),
    [
        ("text.png", {}, "none of the 1 pictures"),
        ("missing.png", {}, "no picture or folder"),
        ("photo.png", {"arch": "resnet18"}, "vit_small"),
        ("photo.png", {"image_size": (8, 8)}, "--image_size"),
        ("photo.png", {"threshold": 1.5}, "--threshold"),
        ("photo.png", {"output_dir": "photo.png"}, "--output_dir"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, others: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    photograph().save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=message) as caught:
        attention.run(settings(tmp_path, image_path=name, **others))
    assert "\n" not in str(caught.value)


def test_no_picture_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--image_path"):
        attention.run(settings(tmp_path))


@pytest.mark.parametrize(("heads", "rows"), [(1, 1), (4, 1), (8, 2)])
def test_posters_are_equally_wide_and_show_every_head(heads: int, rows: int) -> None:
    drawn = draw_attention(small_model(heads=heads), photograph())
    poster = drawn.poster()
    side, gap = attention.POSTER_SIDE, attention.POSTER_GAP
    small = side if heads <= 3 else (side - gap) // 2
    assert poster.size == (3 * side + 2 * gap, side + rows * (gap + small))
    # The corner of the last head's tile is not the black between the tiles.
    column = (heads - 1) % (3 if heads <= 3 else 6)
    corner = poster.getpixel((column * (small + gap) + small - 1, poster.height - 1))
    assert corner != (0, 0, 0)
