from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastdino.data.sources import FolderSource, Source, Subset
from fastdino.distributed.world import World
from fastdino.evaluate.cuts import centre_crop, square
from fastdino.evaluate.feature_cache import FeatureBatch, FeatureCache
from fastdino.evaluate.features import Features, extract_features, stream_features
from fastdino.evaluate.fingerprints import of_features, of_model
from fastdino.models.vision_transformer import VisionTransformer
from tests.fastdino.distributed.processes import in_ranks


class Colours(nn.Module):
    """Mean colours times a weight; counts the pictures that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.mean(dim=(2, 3)) * self.weight


@pytest.fixture
def pictures(picture_folder: Path, tmp_path: Path) -> Path:
    """Twelve pictures and one that is none."""
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    (folder / "red" / "0_broken.png").write_bytes(b"no picture")
    return folder


def measure(model: nn.Module, source: Source, cache: FeatureCache | None) -> Features:
    return extract_features(model, source, image_size=16, batch_size=5, num_workers=0, cache=cache)


def same(one: Features, other: Features) -> bool:
    tensors = ((one.features, other.features), (one.labels, other.labels), (one.indices, other.indices))
    return all(torch.equal(a, b) for a, b in tensors) and one.skipped == other.skipped


def test_what_was_computed_is_read(pictures: Path, tmp_path: Path) -> None:
    cache, model = FeatureCache(tmp_path / "kept", 10**6), Colours()
    plain = measure(model, FolderSource(pictures), None)
    assert len(plain.skipped) == 1
    assert same(measure(model, FolderSource(pictures), cache), plain)
    model.seen.clear()
    assert same(measure(model, FolderSource(pictures), cache), plain)
    # Neither the folder's place nor the size of the batches matters.
    shutil.copytree(pictures, tmp_path / "moved")
    moved = extract_features(model, FolderSource(tmp_path / "moved"), image_size=16, batch_size=2, cache=cache)
    assert same(moved, plain)
    assert model.seen == []


def change_picture(folder: Path) -> None:
    (folder / "red" / "1.png").write_bytes((folder / "blue" / "1.png").read_bytes())


def touch_picture(folder: Path) -> None:
    os.utime(folder / "red" / "1.png", ns=(0, 12345))


def mend_picture(folder: Path) -> None:
    shutil.copy(folder / "red" / "1.png", folder / "red" / "0_broken.png")


@pytest.mark.parametrize("change", [change_picture, touch_picture, mend_picture])
def test_other_pictures_are_computed_anew(pictures: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    cache, model = FeatureCache(tmp_path / "kept", 10**6), Colours()
    measure(model, FolderSource(pictures), cache)
    change(pictures)
    assert same(measure(model, FolderSource(pictures), cache), measure(model, FolderSource(pictures), None))


def test_all_that_features_depend_on_is_in_their_name(pictures: Path) -> None:
    source, model, other = FolderSource(pictures), Colours(), Colours()
    with torch.no_grad():
        other.weight[1] += 1e-6
    names = {
        of_features(model, source, 16, centre_crop, "cpu"),
        of_features(other, source, 16, centre_crop, "cpu"),
        of_features(model, source, 17, centre_crop, "cpu"),
        of_features(model, source, 16, square, "cpu"),
        of_features(model, source, 16, centre_crop, "cuda"),
        of_features(model, Subset(source, [1, 0]), 16, centre_crop, "cpu"),
        of_features(model, Subset(source, [0, 1]), 16, centre_crop, "cpu"),
    }
    assert len(names) == 7
    assert None not in names
    torch.manual_seed(0)
    heads = [VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=n) for n in (2, 4)]
    heads[1].load_state_dict(heads[0].state_dict())
    assert of_model(heads[0]) != of_model(heads[1])


def test_a_damaged_or_half_written_file_is_not_used(pictures: Path, tmp_path: Path) -> None:
    cache, model = FeatureCache(tmp_path / "kept", 10**6), Colours()
    plain = measure(model, FolderSource(pictures), cache)
    (rows,) = (tmp_path / "kept").glob("*.float32")
    rows.write_bytes(rows.read_bytes()[:-4])
    model.seen.clear()
    assert same(measure(model, FolderSource(pictures), cache), plain)
    assert sum(model.seen) == 12
    rows.with_suffix(".json").write_text("{")
    assert same(measure(model, FolderSource(pictures), cache), plain)


def test_the_longest_unused_make_room(pictures: Path, tmp_path: Path) -> None:
    # Twelve pictures with three numbers take 144 bytes: room for two.
    cache, source = FeatureCache(tmp_path / "kept", 300), FolderSource(pictures)
    models = [Colours() for _ in range(3)]
    for number, model in enumerate(models[:2]):
        model.weight.data.fill_(number)
        measure(model, source, cache)
    for age, rows in enumerate(sorted((tmp_path / "kept").glob("*.float32"), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(rows, ns=(0, age + 1))
    # Used again, the older one is the younger.
    measure(models[0], source, cache)
    models[2].weight.data.fill_(2)
    measure(models[2], source, cache)
    assert len(list((tmp_path / "kept").iterdir())) == 4
    keys = [of_features(model, source, 16, centre_crop, "cpu") for model in models]
    assert [cache.has(str(key), source) for key in keys] == [True, False, True]
    small = FeatureCache(tmp_path / "small", 100)
    measure(models[0], source, small)
    assert list((tmp_path / "small").iterdir()) == []


def test_where_nothing_can_be_kept_features_come_all_the_same(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache, model = FeatureCache(tmp_path / "file" / "kept", 10**6), Colours()
    assert same(measure(model, FolderSource(pictures), cache), measure(model, FolderSource(pictures), None))


def test_what_was_broken_off_is_not_kept(pictures: Path, tmp_path: Path) -> None:
    cache, source = FeatureCache(tmp_path / "kept", 10**6), FolderSource(pictures)

    def breaking() -> Iterator[FeatureBatch]:
        yield FeatureBatch(torch.ones(5, 3), list(range(5)), {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(cache.keeping("key", breaking()))
    stream = stream_features(
        Colours(), source, image_size=16, batch_size=5, num_workers=0, device="cpu", description="", console=None,
        cache=cache,
    )  # fmt: skip
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "kept").iterdir()) == []


def measure_in_rank(world: World, pictures: Path, kept: Path) -> list[tuple[list[object], int]]:
    model = Colours()
    own, shared = FeatureCache(kept / str(world.rank), 10**6), FeatureCache(kept / "shared", 10**6)
    answers = []
    for cache in (None, own, shared, shared):
        model.seen.clear()
        features = extract_features(
            model, FolderSource(pictures), image_size=16, batch_size=3, num_workers=0, world=world, cache=cache
        )
        answers.append((plain_values(features), sum(model.seen)))
        # The other one may still be writing.
        world.barrier()
    return answers


def plain_values(features: Features) -> list[object]:
    return [features.features.tolist(), features.labels.tolist(), features.indices.tolist(), features.skipped]


def test_processes_share_the_work(pictures: Path, tmp_path: Path) -> None:
    alone = extract_features(Colours(), FolderSource(pictures), image_size=16, batch_size=3, num_workers=0)
    ranks = in_ranks(2, measure_in_rank, pictures, tmp_path)
    assert all(values == plain_values(alone) for answers in ranks for values, _ in answers)
    # Thirteen pictures, one of them broken, in batches of three: each process computes some, none twice.
    first, second = ([seen for _, seen in answers] for answers in ranks)
    assert [sum(both) for both in zip(first, second, strict=True)] == [12, 12, 12, 0]
    assert min(first[0], second[0]) >= 3
    # The first process of a machine writes for all of them. These believe to be on one, so that one cache stays empty.
    assert not (tmp_path / "1").exists()
