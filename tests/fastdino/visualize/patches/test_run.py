from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fastdino.config import PatchesConfig
from fastdino.errors import UserError
from fastdino.visualize.patches.features import patch_features
from fastdino.visualize.patches.run import run
from fastdino.visualize.transformer import as_input
from tests.fastdino.visualize.small import photograph, small_model


def test_features_are_the_patches_in_their_places() -> None:
    model, picture = small_model(), photograph(48, 32)
    features = patch_features(model, picture, (32, 48))
    [tokens] = model.get_intermediate_layers(as_input(picture, "cpu")[None], 1)
    assert features.shape == (4, 6, 8)
    # Row 2, column 3 of 6, after the class token.
    assert torch.equal(features[2, 3], tokens[0, 1 + 2 * 6 + 3])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        photograph(seed=seed).save(tmp_path / name)
    (tmp_path / "broken.png").write_text("no picture")
    inputs = tuple(str(tmp_path / name) for name in ("a.png", "broken.png", "b.png"))
    paths = run(PatchesConfig(inputs=inputs, arch="vit_tiny", image_size=(48, 64), output_dir=str(tmp_path / "out")))
    written = {path.relative_to(tmp_path / "out").as_posix() for path in paths}
    assert written == {"a/foreground.png", "a/parts.png", "b/foreground.png", "b/parts.png", "patches.png"}
    assert {Image.open(path).size for path in paths[:-1]} == {(50, 40)}
    output = capsys.readouterr().out
    assert "patches.png" in output and "broken.png" in output


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give pictures"):
        run(PatchesConfig(arch="vit_tiny"))
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(UserError, match="none of the 1"):
        run(PatchesConfig(inputs=(str(tmp_path / "broken.png"),), arch="vit_tiny"))
