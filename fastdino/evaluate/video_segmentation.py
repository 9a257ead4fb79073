"""Video object segmentation by the DAVIS protocol, with nothing trained (DINO paper, section 4.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from fastdino.config import VideoSegmentationConfig
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of, patches_of
from fastdino.evaluate.features import progress_bar
from fastdino.evaluate.follow import Follower
from fastdino.evaluate.mask_measures import ObjectScores, Summary, davis_scores
from fastdino.evaluate.output import write_numbers, writing_to
from fastdino.evaluate.videos import ColouredMask, Video, read_davis, read_mask, read_own, write_mask
from fastdino.models.vision_transformer import VisionTransformer


def run(config: VideoSegmentationConfig) -> dict[str, Any]:
    """The command `fastdino video-segmentation`: follow objects, write their masks, print and return the numbers.

    Masks are written as `output_dir`/VIDEO/FRAME.png. Returns `video_segmentation` as `davis_scores` does, None where
    no true masks but the first ones are known, and `videos` {name: {object: the same}}; `output` gets it as JSON.
    Raises UserError for everything that the user can mend.
    """
    if config.topk < 1:
        raise UserError(f"--topk is {config.topk}: give at least 1")
    if config.n_last_frames < 0 or config.size_mask_neighborhood < 0:
        raise UserError("--n_last_frames and --size_mask_neighborhood must not be negative: give 0 or more")
    videos = _find_videos(config)
    model = patches_of(backbone_of(config), "video segmentation")
    if config.imsize < model.patch_size:
        raise UserError(f"--imsize is {config.imsize}: give at least one patch, {model.patch_size} pixels")
    console = Console()
    measured: dict[str, dict[int, tuple[Summary, Summary]]] = {}
    with progress_bar(console) as progress, writing_to(config.output_dir, "--output_dir") as folder:
        counts = [video.count for video in videos]
        task = progress.add_task("", total=None if None in counts else sum(count or 0 for count in counts))
        for video in videos:
            progress.update(task, description=video.name)
            measured[video.name] = _follow(config, model, video, folder / video.name, lambda: progress.advance(task))
    objects = [summary for by_object in measured.values() for summary in by_object.values()]
    scores = davis_scores(objects) if objects else None
    if scores is not None:
        console.print(
            f"J&F {scores['j_and_f']:.1f}, J {scores['j']['mean']:.1f}, F {scores['f']['mean']:.1f} "
            f"({len(objects)} objects in {len(videos)} videos)",
            highlight=False,
        )
    console.print(f"Masks are in {config.output_dir}", highlight=False, markup=False, soft_wrap=True)
    result = {
        "video_segmentation": scores,
        "videos": {
            name: {str(number): davis_scores([summary]) for number, summary in by_object.items()}
            for name, by_object in measured.items()
        },
    }
    write_numbers(result, config.output)
    return result


def _follow(
    config: VideoSegmentationConfig,
    model: VisionTransformer,
    video: Video,
    folder: Path,
    advance: Callable[[], None],
) -> dict[int, tuple[Summary, Summary]]:
    """Write the masks of a video into `folder` and compare those that have a true one."""
    first = read_mask(video.first_mask)
    objects = np.unique(first.labels[first.labels > 0]).tolist()
    if not objects:
        raise UserError(f"{video.first_mask} marks no object: its values are their numbers, 0 is the background")
    scores = ObjectScores(objects)
    folder.mkdir(parents=True, exist_ok=True)
    follower = Follower(
        model,
        first.labels,
        imsize=config.imsize,
        last_frames=config.n_last_frames,
        radius=config.size_mask_neighborhood,
        topk=config.topk,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    for name, frame in video.frames():
        labels = follower.mask_of(frame)
        write_mask(ColouredMask(labels, first.palette), folder / f"{name}.png")
        if name in video.truth:
            truth = read_mask(video.truth[name]).labels
            if truth.shape != labels.shape:
                raise UserError(f"{video.truth[name]} is not of its frame's size: give masks of that size")
            scores.add(labels, truth)
        advance()
    return scores.summaries()


def _find_videos(config: VideoSegmentationConfig) -> list[Video]:
    folder = Path(config.data_path)
    if config.first_mask is not None:
        return [read_own(folder, Path(config.first_mask))]
    if not (folder / "JPEGImages").is_dir():
        raise UserError(
            f"{folder} has no JPEGImages/: give a folder laid out like DAVIS as --data_path, or --first_mask for a "
            "video of your own"
        )
    return read_davis(folder, config.video_list)
