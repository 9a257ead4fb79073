"""How a kernel says with which types and constants it can be launched, so that all of them can be compiled."""

from __future__ import annotations

from typing import Any, NamedTuple


class Configuration(NamedTuple):
    """One specialisation of a kernel that a launcher can choose.

    `configurations(warp_size)`, in the launchers' file or beside it, yields all of a launcher's.

    Attributes:
        name: says what distinguishes it, for tables.
        kernel: the function under `@triton.jit`.
        signature: argument -> type (`*bf16`, `i32`, ...), `constexpr` for those in `constexprs`. `:16` behind a type
            says that the value or address is a multiple of 16, as the launch path finds out from real arguments.
        constexprs: argument -> value.
        options: `num_warps` and what else is passed at the launch.
        wide_loads, wide_stores: 128-bit accesses to global memory that every thread issues at least; 0 where the rows'
            alignment does not allow them.
        extreme: among those that need most of something. The tests compile these, `benchmarks/compile_report.py` all.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    options: dict[str, Any]
    wide_loads: int = 0
    wide_stores: int = 0
    extreme: bool = True
