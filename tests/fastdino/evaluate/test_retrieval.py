from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from fastdino.config import RetrievalConfig
from fastdino.errors import UserError
from fastdino.evaluate import retrieval
from fastdino.evaluate.cuts import SHORTEST, thumbnail
from fastdino.evaluate.ground_truth import Relevant
from fastdino.evaluate.retrieval import MultiScale, retrieval_scores


def spelled_out(order: list[int], positives: set[int], junk: set[int]) -> tuple[float, dict[int, float]]:
    """The protocol's average precision and precisions at 1, 5, 10, walking down the list."""
    seen = found = 0
    area, hits = 0.0, []
    for picture in order:
        if picture in junk:
            continue
        if picture in positives:
            before = found / seen if seen else 1.0
            after = (found + 1) / (seen + 1)
            area += (before + after) / 2 / len(positives)
            found += 1
            hits.append(seen + 1)
        seen += 1
    precisions = {}
    for k in (1, 5, 10):
        cut = min(max(hits), k)
        precisions[k] = sum(hit <= cut for hit in hits) / cut
    return area, precisions


def test_scores_are_those_of_the_protocol() -> None:
    generator = torch.Generator().manual_seed(0)
    gallery, queries = torch.randn(40, 6, generator=generator), torch.randn(5, 6, generator=generator)
    kinds = [torch.randint(0, 6, (40,), generator=generator) for _ in range(5)]
    # The last query has nothing hard to find.
    kinds[-1][kinds[-1] == 1] = 5
    relevant = [
        Relevant(*(frozenset((kind == number).nonzero().flatten().tolist()) for number in range(3))) for kind in kinds
    ]
    scores = retrieval_scores(gallery, queries, relevant)
    assert (scores["easy"]["queries"], scores["hard"]["queries"]) == (5, 4)
    splits = {
        "easy": [(set(t.easy), set(t.junk | t.hard)) for t in relevant],
        "medium": [(set(t.easy | t.hard), set(t.junk)) for t in relevant],
        "hard": [(set(t.hard), set(t.junk | t.easy)) for t in relevant],
    }
    similarities = F.cosine_similarity(queries[:, None], gallery[None], dim=-1)
    for name, split in splits.items():
        values = [
            spelled_out(similarity.argsort(descending=True).tolist(), positives, junk)
            for similarity, (positives, junk) in zip(similarities, split, strict=True)
            if positives
        ]
        assert scores[name]["map"] == pytest.approx(100 * np.mean([area for area, _ in values]))
        for k in (1, 5, 10):
            assert scores[name]["mp"][k] == pytest.approx(100 * np.mean([precisions[k] for _, precisions in values]))


def test_nothing_to_find() -> None:
    nothing = Relevant(frozenset(), frozenset(), frozenset({0}))
    with pytest.raises(UserError, match="easy or hard"):
        retrieval_scores(torch.eye(3), torch.eye(3)[:1], [nothing])


class Sums(nn.Module):
    """Features that depend on the size of the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


def test_scales_are_averaged_a_picture_at_a_time() -> None:
    pictures = torch.rand(2, 3, 40, 60)
    for picture, row in zip(pictures, MultiScale(Sums())(pictures), strict=True):
        total = torch.zeros(3)
        for scale in (1, 1 / 2**0.5, 1 / 2):
            smaller = F.interpolate(picture[None], scale_factor=scale, mode="bilinear", align_corners=False)
            total += smaller.sum(dim=(0, 2, 3))
        # Sums of thousands of numbers in two orders.
        torch.testing.assert_close(row, total / total.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("given", "expected"), [((100, 60), (50, 32)), ((30, 90), (32, 50)), ((40, 45), (40, 45)), ((9, 7), (32, 32))]
)
def test_thumbnails_are_shrunk_and_never_too_small(given: tuple[int, int], expected: tuple[int, int]) -> None:
    assert min(expected) >= SHORTEST
    assert thumbnail(Image.new("RGB", given), 50).size == expected


def paint(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (60, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 20, (*size, 3))
    Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(path, quality=95)


RED, BLUE = (200, 40, 40), (40, 40, 200)


@pytest.fixture
def landmarks(tmp_path: Path) -> Path:
    """Two red pictures and two blue ones, a query of each colour, in the layout of revisited Oxford."""
    folder = tmp_path / "data" / "roxford5k"
    for number, (name, colour) in enumerate({"r0": RED, "b0": BLUE, "r1": RED, "b1": BLUE}.items()):
        paint(folder / "jpg" / f"{name}.jpg", colour, number, (60 + 20 * (number % 2), 80))
    paint(folder / "jpg" / "qr.jpg", RED, 9)
    paint(folder / "jpg" / "qb.jpg", BLUE, 10)
    truth = {
        "imlist": ["r0", "b0", "r1", "b1"],
        "qimlist": ["qr", "qb"],
        "gnd": [
            {"easy": np.array([0]), "hard": np.array([2]), "junk": np.array([], dtype=int), "bbx": [1.5, 2, 3, 4]},
            {"easy": [1], "hard": [], "junk": [0]},
        ],
    }
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth, protocol=2))
    return tmp_path / "data"


def settings(path: Path, **others: Any) -> RetrievalConfig:
    # Random convolutions tell plain colours apart, and no weights are needed.
    return RetrievalConfig(
        data_path=str(path),
        **{"arch": "vit_tiny", "patch_size": 16, "imsize": 64, "num_workers": 0, "batch_size_per_gpu": 3, **others},
    )


@pytest.mark.parametrize("multiscale", [False, True])
def test_run_on_the_published_layout(
    landmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], multiscale: bool
) -> None:
    torch.manual_seed(0)
    result = retrieval.run(settings(landmarks, multiscale=multiscale, output=str(tmp_path / "numbers.json")))
    # b1 is blue too and in no list: for the second query it is a false find, before or after the right one.
    assert result["retrieval"]["hard"] == {"map": 100.0, "mp": {1: 100.0, 5: 100.0, 10: 100.0}, "queries": 1}
    assert result["retrieval"]["easy"]["map"] in (pytest.approx(100), pytest.approx((100 + 25) / 2))
    assert (result["gallery_pictures"], result["query_pictures"], result["skipped"]) == (4, 2, 0)
    written = json.loads((tmp_path / "numbers.json").read_text())
    assert written["retrieval"]["medium"]["map"] == result["retrieval"]["medium"]["map"]
    assert "hard: mAP 100.00, mP@1 100.00" in capsys.readouterr().out


def test_run_on_own_pictures_counts_the_unreadable_as_not_found(tmp_path: Path) -> None:
    for name, colour in {"a/r0.png": RED, "a/r1.png": RED, "b.png": BLUE, "c.png": BLUE}.items():
        paint(tmp_path / "album" / name, colour, len(name))
    (tmp_path / "album" / "broken.png").write_bytes(b"no picture")
    truth = tmp_path / "truth.json"
    # A query that lists itself does not find itself.
    truth.write_text(
        json.dumps(
            [
                {"query": "a/r0.png", "easy": ["a/r1.png", "a/r0.png"]},
                {"query": "b.png", "easy": ["c.png", "broken.png"]},
            ]
        )
    )
    torch.manual_seed(0)
    result = retrieval.run(settings(tmp_path / "album", ground_truth=str(truth)))
    assert result["retrieval"]["easy"]["map"] == pytest.approx((100 + 50) / 2)
    assert "hard" not in result["retrieval"]
    assert (result["gallery_pictures"], result["skipped"]) == (4, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "no list of queries"),
        ('[{"easy": []}]', "without a name"),
        ('[{"query": "a.png", "esay": []}]', "more or other than lists"),
        ('[{"query": "a.png", "easy": "b.png"}]', "more or other than lists"),
        ('[{"query": "a.png", "easy": ["z.png"]}]', "names z.png"),
        ('[{"query": "a.png", "junk": ["b.png"]}]', "easy or hard"),
    ],
)
def test_ground_truth_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / "album" / name, RED, 0)
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(UserError, match=message):
        retrieval.run(settings(tmp_path / "album", ground_truth=str(tmp_path / "truth.json")))


def test_folders_that_cannot_be_used(landmarks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gnd_rparis6k"):
        retrieval.run(settings(landmarks, dataset="rparis6k"))
    with pytest.raises(UserError, match="cannot read"):
        retrieval.run(settings(landmarks, ground_truth=str(tmp_path / "none.json")))
    with pytest.raises(UserError, match="--imsize"):
        retrieval.run(settings(landmarks, imsize=0))
    with pytest.raises(UserError, match="a patch has 32"):
        retrieval.run(settings(landmarks, patch_size=32, multiscale=True))
    (landmarks / "roxford5k" / "jpg" / "b1.jpg").unlink()
    with pytest.raises(UserError, match=r"names b1\.jpg"):
        retrieval.run(settings(landmarks))
    contents: list[dict[str, Any]] = [
        {"imlist": []},
        {"imlist": ["r0"], "qimlist": ["qr"], "gnd": [{"easy": [7], "hard": [], "junk": []}]},
    ]
    for content in contents:
        (landmarks / "roxford5k" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match="download it again"):
            retrieval.run(settings(landmarks))
