"""Every specialisation of the loss kernels that dino_loss_launch can choose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import triton
import triton.language as tl

from fastdino.kernels.configuration import Configuration
from fastdino.kernels.dino_loss_gradient import dino_loss_gradient
from fastdino.kernels.dino_loss_launch import (
    COLUMNS_PER_THREAD,
    MOST_LOCAL_CROPS,
    OPTIONS,
    block_columns,
    padded_slices,
    totals_options,
)
from fastdino.kernels.dino_loss_statistics import dino_loss_statistics, dino_loss_totals

LAYOUTS = ("aligned", "padded", "unaligned")


def configurations(warp_size: int) -> Iterator[Configuration]:
    """What the launchers can choose but for float64, which is for checks.

    A number of local crops is a sum of tiles: 15 has all kinds of them, 16 needs the most registers.
    """
    block = block_columns(warp_size)
    slices = triton.cdiv(65536, block)
    for local_crops in range(MOST_LOCAL_CROPS + 1):
        extreme = local_crops in (8, MOST_LOCAL_CROPS)
        yield from _over_logits("bf16", "bf16", local_crops, block, slices, extreme=extreme)
        yield _of_totals(local_crops, slices, extreme)
    for student, teacher, layout in itertools.product(("bf16", "fp16", "fp32"), ("bf16", "fp16", "fp32"), LAYOUTS):
        extreme = student == teacher == "fp32" or (layout == "aligned" and "fp16" not in (student, teacher))
        for local_crops in (MOST_LOCAL_CROPS - 1, MOST_LOCAL_CROPS):
            if (student, teacher, layout) != ("bf16", "bf16", "aligned"):
                most = local_crops == MOST_LOCAL_CROPS
                yield from _over_logits(student, teacher, local_crops, block, slices, layout, extreme and most)
    for other_slices in (1, 16 * slices):
        _, gradient = _over_logits("bf16", "bf16", MOST_LOCAL_CROPS, block, other_slices)
        yield gradient
        yield _of_totals(MOST_LOCAL_CROPS, other_slices, True)


def _over_logits(
    student: str,
    teacher: str,
    local_crops: int,
    block: int,
    slices: int,
    layout: str = "aligned",
    extreme: bool = True,
) -> Iterator[Configuration]:
    """Both kernels that read logits; `padded` rows are aligned and have more columns than there are prototypes."""
    signature = {
        "student_ptr": f"*{student}:16",
        "teacher_ptr": f"*{teacher}:16",
        "center_ptr": "*fp32:16",
        "student_temp_ptr": "*fp64:16",
        "teacher_temp_ptr": "*fp64:16",
        "partial_ptr": "*fp32:16",
        **dict.fromkeys(("images", "first_image", "slices"), "i32"),
        **dict.fromkeys(("columns", "width", "student_stride", "teacher_stride"), "i32"),
        **dict.fromkeys(("LOCALS", "BLOCK", "VECTOR", "PADDED", "ACC"), "constexpr"),
    }
    aligned = layout != "unaligned"
    constants = {
        "LOCALS": local_crops,
        "BLOCK": block,
        "VECTOR": COLUMNS_PER_THREAD if aligned else 1,
        "PADDED": layout == "padded",
        "ACC": tl.float32,
    }
    size = {"bf16": 2, "fp16": 2, "fp32": 4}
    of_student = (2 + local_crops) * COLUMNS_PER_THREAD * size[student] // 16
    loads = of_student + 2 * COLUMNS_PER_THREAD * size[teacher] // 16
    if layout == "aligned":
        loads += COLUMNS_PER_THREAD * 4 // 16  # of the center
    name = f"{student} {teacher} 2+{local_crops} crops, {layout}"
    yield Configuration(
        name,
        dino_loss_statistics,
        {**signature, "first_slice": "i32"},
        constants,
        OPTIONS,
        loads * aligned,
        extreme=extreme,
    )
    of_gradient = {"grad_output_ptr": "*fp32:16", "gradient_ptr": f"*{student}:16", "gradient_stride": "i32"}
    yield Configuration(
        f"{name}, {slices} slices",
        dino_loss_gradient,
        {**signature, **of_gradient, "SLICES": "constexpr"},
        {**constants, "SLICES": padded_slices(slices)},
        OPTIONS,
        loads * aligned,
        of_student * aligned,
        extreme,
    )


def _of_totals(local_crops: int, slices: int, extreme: bool) -> Configuration:
    return Configuration(
        f"2+{local_crops} crops, {slices} slices",
        dino_loss_totals,
        {
            **dict.fromkeys(("partial_ptr", "result_ptr"), "*fp32:16"),
            **dict.fromkeys(("images", "slices"), "i32"),
            **dict.fromkeys(("LOCALS", "CROPS", "SLICES", "ACC"), "constexpr"),
        },
        {
            "LOCALS": local_crops,
            "CROPS": triton.next_power_of_2(local_crops + 2),
            "SLICES": padded_slices(slices),
            "ACC": tl.float32,
        },
        totals_options(slices),
        extreme=extreme,
    )
