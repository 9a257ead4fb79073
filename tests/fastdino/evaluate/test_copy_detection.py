from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from fastdino.config import CopyDetectionConfig
from fastdino.errors import UserError
from fastdino.evaluate import copy_detection
from fastdino.evaluate.copies import read_copies
from fastdino.evaluate.copy_detection import ClsAndGem, copy_scores, learn_whitening
from fastdino.models.vision_transformer import VisionTransformer


def paint(path: Path, seed: int, brightness: int = 0) -> None:
    """Broad patches of colour, another picture for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(30, 220, (3, 4, 3))
    picture = Image.fromarray((pixels + brightness).astype(np.uint8)).resize((80, 60), Image.Resampling.NEAREST)
    picture.save(path)


def test_features_are_cls_and_a_generalised_mean() -> None:
    model = VisionTransformer(img_size=[16], patch_size=8, embed_dim=32, depth=2, num_heads=2).eval()
    pictures = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        features, (tokens,) = ClsAndGem(model)(pictures), model.get_intermediate_layers(pictures, 1)
    assert torch.equal(features[:, :32], tokens[:, 0])
    for picture in range(2):
        for number in (0, 17):
            values = [max(float(value), 1e-6) ** 4 for value in tokens[picture, 1:, number]]
            assert float(features[picture, 32 + number]) == pytest.approx((sum(values) / 6) ** 0.25, rel=1e-5)


def test_whitening_of_centred_features_is_sklearns() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    features = (features - features.mean(dim=0)).double()
    ours = learn_whitening(features)(features)
    theirs = torch.from_numpy(PCA(whiten=True).fit_transform(features.numpy()))
    # Up to a rotation, of which no angle knows, and n - 1 in place of n.
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T * 200 / 199, rtol=1e-8, atol=1e-8)


def test_whitening_takes_moments_that_are_not_centred() -> None:
    features = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double() + torch.tensor([3.0, 0, 0])
    whiten = learn_whitening(features)
    moments = features.T @ features / 50
    shifted = features - features.mean(dim=0)
    expected = shifted @ torch.linalg.inv(moments) @ shifted.T
    torch.testing.assert_close(whiten(features) @ whiten(features).T, expected, rtol=1e-8, atol=1e-8)


def test_fewer_pictures_than_directions_stay_finite() -> None:
    assert bool(learn_whitening(torch.randn(3, 10))(torch.randn(4, 10)).isfinite().all())


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="diverged"):
        learn_whitening(torch.full((3, 2), torch.nan))


def test_scores_count_only_the_first_twenty() -> None:
    # Pictures on a half circle: the query at angle 0 finds them in their order.
    angles = torch.linspace(0, 3, 30)
    database = torch.stack((angles.cos(), angles.sin()), dim=1)
    query = torch.tensor([[1.0, 0.0]]).repeat(5, 1)
    scores = copy_scores(database, query, [0, 1, 19, 20, -1], ["a", "b", "c", "d", "d"])
    # One to find, at rank r: precision is 0 before (1 at rank 0) and 1 / (r + 1) after it.
    assert scores == pytest.approx({"a": 100.0, "b": 25.0, "c": 100 / 40, "d": 0.0})


def test_copies_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("original/cat", "original/cat_big", "dark/cat_2", "dark/cat_big_2", "dark/cat", "crops/50/dog"):
        paint(tmp_path / "own" / f"{name}.png", 0)
    copies = read_copies(tmp_path / "own")
    names = [copies.queries.name(index) for index in range(len(copies.queries))]
    wanted = {name: copies.originals.name(number) for name, number in zip(names, copies.wanted, strict=True)}
    assert wanted["dark/cat_2.png"] == wanted["dark/cat.png"] == "original/cat.png"
    assert wanted["dark/cat_big_2.png"] == "original/cat_big.png"
    assert copies.block[names.index("dark/cat.png")] == "dark"
    assert copies.strays == ["crops/50/dog.png"]
    for name in ("original/200000", "original/200100", "strong/200001", "strong/200102", "jpegqual/3/200100"):
        paint(tmp_path / "copydays" / f"{name}.jpg", 0)
    copies = read_copies(tmp_path / "copydays")
    assert list(zip(copies.block, copies.wanted, strict=True)) == [
        ("original", 0),
        ("original", 1),
        ("jpegqual/3", 1),
        ("strong", 0),
        ("strong", 1),
    ]


def settings(path: Path, **others: Any) -> CopyDetectionConfig:
    return CopyDetectionConfig(
        data_path=str(path),
        **{"arch": "vit_tiny", "patch_size": 16, "imsize": 32, "num_workers": 0, **others},
    )


def test_run_finds_brightened_pictures_among_distractors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    for seed in range(4):
        paint(data / "original" / f"p{seed}.png", seed)
        paint(data / "bright" / f"p{seed}_b.png", seed, 15)
        paint(data / "strange" / f"p{seed}.png", 50 + seed)
        paint(tmp_path / "others" / f"{seed}.png", 100 + seed)
    (data / "original" / "p3.png").write_bytes(b"no picture")
    (data / "strange" / "unknown.png").write_bytes(b"no picture")
    torch.manual_seed(0)
    plain = copy_detection.run(settings(data, distractors_path=str(tmp_path / "others")))
    # The original of the fourth cannot be read, so that no one finds it.
    assert plain["copy_detection"]["bright"] == 75
    assert plain["copy_detection"]["original"] == 100
    assert plain["copy_detection"]["strange"] < 75
    assert (plain["originals"], plain["distractors"], plain["copies"], plain["skipped"]) == (3, 4, 8, 1)
    assert "strange/unknown.png" in capsys.readouterr().out
    torch.manual_seed(0)
    output = tmp_path / "numbers.json"
    whitened = copy_detection.run(settings(data, whitening_path=str(tmp_path / "others"), output=str(output)))
    assert whitened["copy_detection"]["original"] == 100
    assert whitened["distractors"] == 0
    assert json.loads(output.read_text()) == whitened


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    with pytest.raises(UserError, match="no pictures in original/"):
        copy_detection.run(settings(tmp_path))
    paint(tmp_path / "original" / "b.png", 0)
    with pytest.raises(UserError, match="no copies of what is in"):
        copy_detection.run(settings(tmp_path))
    paint(tmp_path / "dark" / "b_2.png", 0)
    with pytest.raises(UserError, match="--imsize"):
        copy_detection.run(settings(tmp_path, imsize=15))
    (tmp_path / "original" / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the pictures in original/"):
        copy_detection.run(settings(tmp_path))
    with pytest.raises(UserError, match=r"patches, which resnet18 lacks"):
        copy_detection.run(settings(tmp_path, arch="resnet18", patch_size=None))
    paint(tmp_path / "original" / "b.jpg", 0)
    with pytest.raises(UserError, match="two originals are called b"):
        copy_detection.run(settings(tmp_path))
