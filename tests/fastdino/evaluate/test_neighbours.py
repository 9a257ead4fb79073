from __future__ import annotations

import pytest
import torch

from fastdino.errors import UserError
from fastdino.evaluate import neighbours
from fastdino.evaluate.neighbours import nearest


def collect(gallery: torch.Tensor, queries: torch.Tensor | None, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    pieces = list(nearest(gallery, queries, k))
    assert [piece.rows.start for piece in pieces[1:]] == [piece.rows.stop for piece in pieces[:-1]]
    return torch.cat([piece.similarities for piece in pieces]), torch.cat([piece.indices for piece in pieces])


@pytest.mark.parametrize("piece_bytes", [1, 1000, 10**9])
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    torch.manual_seed(0)
    gallery, queries = torch.randn(40, 8), torch.randn(23, 8)
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=-1)
    monkeypatch.setattr(neighbours, "PIECE_BYTES", piece_bytes)
    similarities, indices = collect(gallery, queries, 5)
    assert torch.equal(indices, cosine.argsort(dim=1, descending=True)[:, :5])
    # Two orders of 8 products each, of numbers up to 1: 8 roundings of 6e-8 on either side.
    assert torch.allclose(similarities, cosine.sort(dim=1, descending=True).values[:, :5], rtol=0, atol=1e-6)


def test_leave_one_out_never_finds_itself_even_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = torch.randn(7, 3)
    monkeypatch.setattr(neighbours, "PIECE_BYTES", 4 * 7 * 2)
    _, indices = collect(gallery, None, 6)
    for row in range(7):
        assert sorted(indices[row].tolist()) == [other for other in range(7) if other != row]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    features = torch.ones(3, 2)
    features[1, 1] = bad
    with pytest.raises(UserError, match="diverged"):
        collect(features, None, 1)
