"""Compiles kernels for GPUs that are not here, with Triton's own compiler, and reads the machine code.

Needs a process in which TRITON_INTERPRET is not set: an interpreted kernel cannot be compiled.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
REGISTER_LIMIT = {"cuda": 255, "hip": 512}
# What one block can have without asking for more on the smallest of the targets (sm_120: 99 KiB; gfx942: 64 KiB).
SHARED_LIMIT = {"cuda": 99 * 1024, "hip": 64 * 1024}


@dataclass(frozen=True)
class MachineCode:
    """What a compiled kernel costs.

    Attributes:
        registers: per thread (vector registers on AMD).
        spilled_bytes: stack per thread; 0 when everything stays in registers.
        shared_bytes: per block.
        loads, stores: width in bits -> instructions on global memory, as they stand in the code.
        exponentials: instructions of the special-function unit that compute 2^x.
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    loads: dict[int, int]
    stores: dict[int, int]
    exponentials: int


def compile_for(
    target: str, kernel: Any, signature: dict[str, str], constexprs: dict[str, Any], options: dict[str, Any]
) -> MachineCode:
    """Compile with the types that `fastdino.kernels.configuration.Configuration` describes."""
    return read(compiled_for(target, kernel, signature, constexprs, options), target)


def compiled_for(
    target: str, kernel: Any, signature: dict[str, str], constexprs: dict[str, Any], options: dict[str, Any]
) -> Any:
    """The same, as Triton's own object."""
    names = [parameter.name for parameter in kernel.params]
    missing = set(names) ^ set(signature)
    if missing:
        raise ValueError(f"{kernel.__name__}: the signature and the kernel differ in {', '.join(sorted(missing))}")
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name].removesuffix(":16") for name in names},
        constexprs=constexprs,
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].endswith(":16")},
    )
    return triton.compile(source, target=TARGETS[target], options=options)


def compiled_launches(target: str, launch: Callable[[], object]) -> list[tuple[str, MachineCode]]:
    """Kernel and machine code of all launches that `launch` would do, without doing them.

    Compiled for the very arguments, as at a launch; tensors on the CPU stand for the GPU's.
    """
    compiled: list[tuple[str, MachineCode]] = []
    run = JITFunction.run

    def warm_up(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel.device_caches.clear()  # they remember the target of an earlier call
        code = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((kernel.__name__, read(code, target)))

    # Not the property `active`, which looks for a GPU.
    previous = triton.runtime.driver._active
    triton.runtime.driver.set_active(_AbsentGPU(TARGETS[target]))
    checks = mock.patch("fastdino.kernels.launch.check_device"), mock.patch.object(JITFunction, "run", warm_up)
    try:
        with checks[0], checks[1]:
            launch()
    finally:
        triton.runtime.driver.set_active(previous)
    return compiled


def read(compiled: Any, target: str) -> MachineCode:
    """Registers, spills and widths from what Triton's compiler returned."""
    if TARGETS[target].backend == "hip":
        return _read_amd(compiled.asm["amdgcn"], compiled.metadata.shared)
    usage = _resource_usage(compiled.asm["cubin"])
    code = compiled.asm["ptx"]
    return MachineCode(
        registers=int(_search(r"REG:(\d+)", usage)),
        spilled_bytes=int(_search(r"STACK:(\d+)", usage)) + int(_search(r"LOCAL:(\d+)", usage)),
        shared_bytes=compiled.metadata.shared,
        loads=_ptx_widths("ld", code),
        stores=_ptx_widths("st", code),
        exponentials=len(re.findall(r"\bex2\.", code)),
    )


def sass_widths(compiled: Any) -> tuple[dict[int, int], dict[int, int]]:
    """Widths of loads and stores in what the GPU runs: NVIDIA's disassembler takes half a second a kernel.

    `read` looks at PTX instead, from which the assembler takes the widths over.
    """
    code = compiled.asm["sass"]
    return _sass_widths(re.findall(r"\bLDG\.([.A-Z0-9_]*)", code)), _sass_widths(
        re.findall(r"\bSTG\.([.A-Z0-9_]*)", code)
    )


class _AbsentGPU:
    """Stands where Triton expects the driver of a GPU."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)


def _resource_usage(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _ptx_widths(verb: str, code: str) -> dict[int, int]:
    """`ld.global.v4.b32` moves 128 bits."""
    found = re.findall(rf"\b{verb}\.global(?:\.(?!v\d)[A-Za-z]\w*(?:::\w+)*)*?(?:\.v(\d))?\.[bfsu](\d+)\b", code)
    return dict(Counter(int(vector or 1) * int(bits) for vector, bits in found))


def _sass_widths(suffixes: list[str]) -> dict[int, int]:
    """`E.128.CONSTANT` -> 128; without a width in the name the instruction moves 32 bits."""
    widths = (re.search(r"(?:^|\.)[US]?(8|16|64|128|256)(?:\.|$)", suffix) for suffix in suffixes)
    return dict(Counter(int(width[1]) if width else 32 for width in widths))


def _read_amd(code: str, shared: int) -> MachineCode:
    bits = {"ubyte": 8, "sbyte": 8, "byte": 8, "ushort": 16, "short": 16, "dword": 32, "dwordx2": 64, "dwordx3": 96}
    bits |= {"dwordx4": 128}

    def widths(verb: str) -> dict[int, int]:
        found = re.findall(rf"\b(?:global|buffer)_{verb}_(\w+?)(?:_d16(?:_hi)?)?\s", code)
        return dict(Counter(bits[name] for name in found))

    return MachineCode(
        registers=int(_search(r"\.vgpr_count:\s*(\d+)", code)),
        spilled_bytes=int(_search(r"\.private_segment_fixed_size:\s*(\d+)", code)),
        shared_bytes=shared,
        loads=widths("load"),
        stores=widths("store"),
        exponentials=len(re.findall(r"\bv_exp_f32", code)),
    )


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the compiler's output has no {pattern}")
    return match[1]
