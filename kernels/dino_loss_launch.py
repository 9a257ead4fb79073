"""Launchers of the loss kernels: what they ask of their tensors, and the sizes they choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdino.kernels import launch
from fastdino.kernels.dino_loss_gradient import dino_loss_gradient
from fastdino.kernels.dino_loss_statistics import dino_loss_means, dino_loss_statistics, dino_loss_totals

MOST_LOCAL_CROPS = 16
MOST_IMAGES = 65535  # the largest second dimension of a grid
LOGIT_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)

WARPS = 4
# 128 bits of a 16-bit type. Four warps of this many columns leave room for as many blocks on a multiprocessor as hide
# the memory's latency; eight warps need as many registers per thread and fit in a coarser step.
COLUMNS_PER_THREAD = 8
# fp_fusion is what Triton does today by itself and announces to stop doing.
OPTIONS: dict[str, Any] = {"num_warps": WARPS, "enable_fp_fusion": True}


@dataclass(frozen=True)
class Logits:
    """Student and teacher over the same columns, of which those that `center` covers are prototypes."""

    student: Tensor
    teacher: Tensor
    center: Tensor
    student_temp: Tensor
    teacher_temp: Tensor

    def pointers(self) -> tuple[Tensor, ...]:
        """In the kernels' order."""
        return self.student, self.teacher, self.center, self.student_temp, self.teacher_temp


@dataclass(frozen=True)
class Statistics:
    """What the rows of a batch add up to, slice by slice of their columns: `partial` in dino_loss_tiles."""

    partial: Tensor
    images: int
    local_crops: int

    @classmethod
    def empty(cls, logits: Logits, ncrops: int, columns: int | None = None) -> Statistics:
        """For logits of which `columns` exist in all, if not only those given."""
        slices = triton.cdiv(columns or logits.center.numel(), block_columns(launch.warp_size()))
        images = logits.student.shape[0] // ncrops
        wide = torch.float64 in (logits.student.dtype, logits.teacher.dtype)
        shape = (images, 2 * (ncrops + 2) + 4, slices)
        partial = torch.empty(shape, dtype=torch.float64 if wide else torch.float32, device=logits.student.device)
        return cls(partial, images, ncrops - 2)

    @property
    def slices(self) -> int:
        """Slices of all columns."""
        return self.partial.shape[2]

    @property
    def accumulator(self) -> tl.dtype:
        """Type in which the kernels compute."""
        return tl.float64 if self.partial.dtype == torch.float64 else tl.float32


def launch_statistics(
    statistics: Statistics, logits: Logits, first_image: int = 0, count: int | None = None, first_slice: int = 0
) -> None:
    """Statistics of `count` images over the columns of `logits`, which start at slice `first_slice` of all columns."""
    columns, block = logits.center.numel(), block_columns(launch.warp_size())
    vector = vector_columns(logits.student, logits.teacher)
    with launch.device_of(logits.student):
        dino_loss_statistics[triton.cdiv(columns, block), count or statistics.images](
            *logits.pointers(),
            statistics.partial,
            statistics.images,
            first_image,
            columns,
            logits.student.shape[1] // vector,
            first_slice,
            statistics.slices,
            logits.student.stride(0) // vector,
            logits.teacher.stride(0) // vector,
            LOCALS=statistics.local_crops,
            BLOCK=block,
            VECTOR=vector,
            PADDED=columns < logits.student.shape[1],
            ACC=statistics.accumulator,
            **OPTIONS,
        )


def launch_gradient(
    statistics: Statistics,
    logits: Logits,
    grad_output: Tensor,
    gradient: Tensor,
    first_image: int = 0,
    count: int | None = None,
) -> None:
    """Gradient of `count` images over the columns of `logits`, once the statistics of all columns stand."""
    columns, width, block = logits.center.numel(), logits.student.shape[1], block_columns(launch.warp_size())
    vector = vector_columns(logits.student, logits.teacher, gradient)
    with launch.device_of(logits.student):
        dino_loss_gradient[triton.cdiv(width, block), count or statistics.images](
            *logits.pointers(),
            grad_output,
            statistics.partial,
            gradient,
            statistics.images,
            first_image,
            columns,
            width // vector,
            statistics.slices,
            logits.student.stride(0) // vector,
            logits.teacher.stride(0) // vector,
            gradient.stride(0) // vector,
            LOCALS=statistics.local_crops,
            BLOCK=block,
            SLICES=padded_slices(statistics.slices),
            VECTOR=vector,
            PADDED=columns < width,
            ACC=statistics.accumulator,
            **OPTIONS,
        )


def launch_totals(statistics: Statistics) -> tuple[Tensor, Tensor]:
    """Mean loss and mean teacher entropy, once the statistics stand."""
    of_images = statistics.partial.new_empty(2, statistics.images)
    loss, entropy = statistics.partial.new_empty(()), statistics.partial.new_empty(())
    with launch.device_of(statistics.partial):
        dino_loss_totals[statistics.images,](
            statistics.partial,
            of_images,
            statistics.images,
            statistics.slices,
            LOCALS=statistics.local_crops,
            CROPS=triton.next_power_of_2(statistics.local_crops + 2),
            SLICES=padded_slices(statistics.slices),
            ACC=statistics.accumulator,
            **totals_options(statistics.slices),
        )
        dino_loss_means[1,](of_images, loss, entropy, statistics.images, BLOCK=256, **OPTIONS)
    return loss, entropy


def checked_logits(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    ncrops: int,
    student_temp: float | Tensor,
    teacher_temp: float | Tensor,
) -> Logits:
    """The arguments of the public functions as the kernels want them; raises ValueError where they do not fit."""
    check_crops(ncrops, student.shape[0])
    images = student.shape[0] // ncrops
    if student.dim() != 2 or teacher.dim() != 2 or teacher.shape != (2 * images, student.shape[1]):
        raise ValueError(
            f"the teacher's logits have the shape {tuple(teacher.shape)}; with student logits "
            f"{tuple(student.shape)} of {ncrops} crops it must be ({2 * images}, {student.shape[-1]})"
        )
    for name, logits in (("student", student), ("teacher", teacher)):
        if logits.dtype not in LOGIT_DTYPES:
            raise ValueError(
                f"the {name}'s logits are {logits.dtype}; the kernels take floating point of 16 to 64 bits"
            )
        if logits.stride(1) != 1:
            raise ValueError(f"the {name}'s logits must lie side by side within a row: call .contiguous() on them")
    if not center.is_contiguous() or center.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the center must be contiguous float32, not {center.dtype} with strides {center.stride()}")
    if not 0 < center.numel() <= student.shape[1]:
        raise ValueError(f"the center has {center.numel()} values, the logits {student.shape[1]} columns")
    if not student.device == teacher.device == center.device:
        raise ValueError(f"logits and center are on {student.device}, {teacher.device} and {center.device}: use one")
    launch.check_device(student.device)
    return Logits(
        student,
        teacher.detach(),
        center.detach().view(-1),
        launch.on_device(student_temp, student.device),
        launch.on_device(teacher_temp, student.device),
    )


def check_crops(ncrops: int, rows: int) -> None:
    """`rows` are `ncrops` crops each of at least one image."""
    if not 2 <= ncrops <= 2 + MOST_LOCAL_CROPS:
        raise ValueError(f"ncrops is {ncrops}; the kernels take 2 global and up to {MOST_LOCAL_CROPS} local crops")
    if rows == 0 or rows % ncrops or rows // ncrops > MOST_IMAGES:
        raise ValueError(f"{rows} student rows are not {ncrops} crops each of 1 to {MOST_IMAGES} images")


def groups(logits: Logits, images: int, group: int | None) -> Iterator[tuple[int, int]]:
    """(first image, images) of pieces of nearly equal size, at most `group` or what half of the cache holds."""
    if group is None:
        of_all = sum(x.shape[0] * x.shape[1] * x.element_size() for x in (logits.student, logits.teacher))
        group = max(1, cache_bytes(logits.student.device) // 2 * images // of_all)
    pieces = triton.cdiv(images, group)
    for piece in range(pieces):
        first = images * piece // pieces
        yield first, images * (piece + 1) // pieces - first


def cache_bytes(device: torch.device) -> int:
    """Second-level cache; for the interpreter an H100's."""
    return torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 50 * 2**20


def block_columns(warp_size: int) -> int:
    """Columns of a slice."""
    return WARPS * warp_size * COLUMNS_PER_THREAD


def padded_slices(slices: int) -> int:
    """A power of two, and one for each thread of a warp: below, every thread would load all of them."""
    return max(32, triton.next_power_of_2(slices))


def totals_options(slices: int) -> dict[str, Any]:
    """More warps for many slices, all of which a program holds in registers."""
    return OPTIONS | {"num_warps": min(16, max(WARPS, padded_slices(slices) // 64))}


def vector_columns(*logits: Tensor) -> int:
    """Columns that a thread may move at once: all rows have to start and end at multiples of it."""
    aligned = all(x.stride(0) % COLUMNS_PER_THREAD == 0 == x.shape[1] % COLUMNS_PER_THREAD for x in logits)
    return COLUMNS_PER_THREAD if aligned else 1


def why_narrow(*logits: Tensor) -> str | None:
    """Why the kernels move these logits one by one, in a sentence with the remedy; None if they do not."""
    if vector_columns(*logits) > 1 and all(x.data_ptr() % 16 == 0 for x in logits):
        return None
    return (
        f"rows of {logits[0].shape[1]} logits do not start and end at 16-byte boundaries, so the loss moves them one "
        f"by one: make out_dim a multiple of {COLUMNS_PER_THREAD}, or give the prototypes so many rows and leave the "
        "center shorter"
    )


def empty_aligned(like: Tensor) -> Tensor:
    """As large as `like`, (R, C), with rows that start at multiples of 16 bytes."""
    columns = triton.cdiv(like.shape[1], COLUMNS_PER_THREAD) * COLUMNS_PER_THREAD
    return like.new_empty(like.shape[0], columns)[:, : like.shape[1]]
