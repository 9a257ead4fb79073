from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdino.data.normalize import normalize
from fastdino.errors import UserError
from fastdino.evaluate.cuts import centre_crop
from fastdino.export.run import export
from fastdino.models.formats.huggingface import from_huggingface, to_huggingface
from fastdino.models.pretrained import Backbone, load_backbone

transformers = pytest.importorskip("transformers", reason="fastdino[export] is not installed")


@pytest.fixture(scope="module")
def folder(named: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model"
    export(named, "huggingface", path)
    return path


@torch.no_grad()
def test_transformers_gives_the_features(named: Backbone, folder: Path) -> None:
    model = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False)
    pictures = torch.randn(2, 3, 64, 64)
    features = model(pictures).last_hidden_state[:, 0]
    torch.testing.assert_close(features, named.model(pictures), rtol=0, atol=1e-5)


def test_what_transformers_saves_is_read(named: Backbone, folder: Path, tmp_path: Path) -> None:
    # With the pooler that transformers adds unless it is told not to.
    transformers.ViTModel.from_pretrained(folder).save_pretrained(tmp_path)
    backbone = load_backbone(tmp_path)
    assert (backbone.arch, backbone.patch_size, backbone.image_size) == ("vit_tiny", 16, 64)
    for key, tensor in named.model.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[key], tensor), key


def test_a_file_alone_is_read(named: Backbone, tmp_path: Path) -> None:
    torch.save(to_huggingface(named.model.state_dict()), tmp_path / "pytorch_model.bin")
    assert torch.equal(load_backbone(tmp_path / "pytorch_model.bin").model.pos_embed, named.model.pos_embed)


def test_names_go_there_and_back(named: Backbone) -> None:
    state = named.model.state_dict()
    theirs = {f"vit.{key}": value for key, value in to_huggingface(state).items()}
    back = from_huggingface({**theirs, "classifier.weight": torch.zeros(1)})
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    # Half of a product is no product: the key that stays tells which.
    del theirs["vit.encoder.layer.0.attention.attention.query.bias"]
    assert "encoder.layer.0.attention.attention.key.bias" in from_huggingface(theirs)


def test_the_processor_looks_where_we_look(folder: Path) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    rows, columns = np.mgrid[:90, :140]
    picture = Image.fromarray(np.stack((rows * 2, columns, rows + columns), axis=-1).astype(np.uint8))
    theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
    ours = normalize(torch.from_numpy(np.array(centre_crop(picture, 64))).permute(2, 0, 1))
    assert theirs.shape == ours.shape
    # One grey level, at the smallest of the three deviations: two libraries round the same bicubic filter.
    assert (theirs - ours).abs().max() <= 1.01 / 255 / 0.224


def test_convnets_are_refused(convnet: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ViTModel cannot be a resnet18"):
        export(convnet, "huggingface", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
