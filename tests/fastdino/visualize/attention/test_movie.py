from __future__ import annotations

import weakref
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fastdino.config import MOVIES, AttentionConfig
from fastdino.errors import UserError
from fastdino.video import open_video, write_video
from fastdino.visualize.attention import movie
from fastdino.visualize.attention.movie import Frames, draw_frame, open_frames, write_movie
from fastdino.visualize.attention.run import run
from tests.fastdino.visualize.small import photograph, small_model


def make_movie(path: Path, count: int = 8, size: tuple[int, int] = (50, 40)) -> Path:
    with write_video(path, Fraction(12)) as add:
        for number in range(count):
            add(photograph(*size, seed=number))
    return path


def settings(**others: Any) -> AttentionConfig:
    return AttentionConfig(**({"arch": "vit_tiny", "image_size": (32, 48)} | others))


def test_a_movie_of_a_movie(tmp_path: Path) -> None:
    source = make_movie(tmp_path / "movie.mp4")
    assert run(settings(inputs=(str(source),), out=str(tmp_path / "new" / "out.mp4"))) == [tmp_path / "new" / "out.mp4"]
    with open_video(tmp_path / "new" / "out.mp4") as video:
        assert (video.rate, video.count) == (Fraction(12), 8)
        assert {frame.size for frame in video} == {(50, 40)}


def test_a_movie_that_ends_early_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = Frames(Fraction(12), 5, [photograph(seed=number) for number in range(3)])
    monkeypatch.setattr(movie, "open_frames", lambda *_: nullcontext(frames))
    write_movie(small_model(), tmp_path / "cut.mp4", tmp_path / "out.mp4", settings(), Console())
    assert "cut.mp4 ends after 3 of 5 frames" in capsys.readouterr().out


def test_its_name_without_out(tmp_path: Path) -> None:
    source = make_movie(tmp_path / "movie.mkv", 2)
    assert run(settings(inputs=(str(source),), output_dir=str(tmp_path))) == [tmp_path / "movie_attention.mp4"]


def most_frames_alive(count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Frames, read and drawn, that are in memory at once while the movie of `count` frames is made."""
    seen: list[weakref.ref[Image.Image]] = []
    alive: list[int] = []

    def watch(frame: Image.Image, *others: Any) -> Image.Image:
        drawn = draw_frame(frame, *others)
        seen.extend((weakref.ref(frame), weakref.ref(drawn)))
        alive.append(sum(one() is not None for one in seen))
        return drawn

    monkeypatch.setattr(movie, "draw_frame", watch)
    source = make_movie(folder / f"{count}.mp4", count)
    write_movie(small_model(), source, folder / "out.mp4", settings(), Console())
    assert len(alive) == count
    return max(alive)


def test_frames_in_memory_do_not_grow_with_the_movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The frame and what is drawn of it, and those before them for as long as a name holds them.
    assert most_frames_alive(48, tmp_path, monkeypatch) == most_frames_alive(6, tmp_path, monkeypatch) <= 4


def test_a_folder_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frames").mkdir()
    for number in (1, 2, 10):
        photograph(seed=number).save(tmp_path / "frames" / f"{number}.png")
    (tmp_path / "frames" / "3.jpg").write_text("no picture")
    [out] = run(settings(inputs=(str(tmp_path / "frames"),), out=str(tmp_path / "out.mp4"), fps=6.0))
    with open_video(out) as video:
        assert (video.rate, video.count) == (Fraction(6), 3)
    assert "3.jpg" in capsys.readouterr().out
    with open_frames(tmp_path / "frames", None, {}) as frames:
        levels = [np.asarray(frame).mean() for frame in frames.pictures]
    assert frames.rate == 30
    assert levels == [np.asarray(photograph(seed=number)).mean() for number in (1, 2, 10)]


def test_frames_of_several_sizes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in (1, 2):
        photograph(40 + number).save(tmp_path / "frames" / f"{number}.png")
    with pytest.raises(UserError, match=r"2\.png is 42 x 40 pixels and the first frame 41 x 40"):
        run(settings(inputs=(str(tmp_path / "frames"),), out=str(tmp_path / "out.mp4")))
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"inputs": ("movie.mp4", "movie.mp4")}, "one movie"),
        ({"out": "movie.mp4"}, "the movie itself"),
        ({"out": "out.gif"}, "ending in"),
        ({"head": 3}, "heads 0 to 2"),
        ({"fps": 0.0}, "--fps"),
        ({"masks": "."}, "--masks"),
        ({"image_size": (8, 8)}, "--image_size"),
    ],
)
def test_bad_movies_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_movie(tmp_path / "movie.mp4", 1)
    with pytest.raises(UserError, match=message):
        run(settings(**({"inputs": ("movie.mp4",)} | others)))


def test_what_a_frame_shows() -> None:
    frame = Image.new("RGB", (60, 44), (120, 120, 120))
    maps = torch.full((3, 4, 6), 0.01)
    maps[0, :, :3] = maps[1, :, 3:] = maps[2, :2] = 0.1
    drawn = {what: np.asarray(draw_frame(frame, maps, what, 0, 0.9)).astype(int) for what in MOVIES}
    assert {picture.shape for picture in drawn.values()} == {(44, 60, 3)}
    assert drawn["map"][20, 5].tolist() == [253, 231, 37] and drawn["map"][20, 55].tolist() == [68, 1, 84]
    assert (drawn["mask"][:, 35:] == 120).all() and not (drawn["mask"][:, :25] == 120).all(axis=-1).any()
    assert drawn["overlay"][20, 5].sum() > 2 * drawn["overlay"][20, 55].sum()
    # The frame itself, and a head each in reading order: the second is bright on the right.
    tiles = drawn["heads"]
    assert (tiles[:22, :30] == 120).all()
    assert tiles[32, 28].sum() > 2 * tiles[32, 2].sum()
    mean = np.asarray(draw_frame(frame, maps, "map", None, 0.6)).astype(int)
    # Left, right and above have one head each; above both have two.
    assert (mean[5, 5] == mean[5, 55]).all() and mean[5, 5].sum() > mean[40, 5].sum()
