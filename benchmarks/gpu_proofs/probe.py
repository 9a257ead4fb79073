"""Watches every access of interpreted kernels: bytes, bounds, undefined lanes, races, launches.

    with Probe() as probe:
        launcher(x, y)
    probe.loaded("kernel_name", "x_ptr")

Inside the block a lane outside the tensors that the launch was given, an address that two programs touch while one of
them writes, and an atomic operation raise `ProbeError`. Lanes that a mask leaves undefined read NaN (the smallest
integer for integers), so that a kernel which uses them shows it in its result.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle, _get_np_dtype

from benchmarks.gpu_proofs.interpreter import BFLOAT16_NAN

NOBODY = -1
SEVERAL = -2


class ProbeError(RuntimeError):
    """A kernel did what no kernel here may do."""


@dataclass
class Traffic:
    """Bytes that moved between a kernel and one of its arguments; `unique` counts an address once per launch."""

    loaded: int = 0
    stored: int = 0
    unique_loaded: int = 0
    unique_stored: int = 0


@dataclass
class Region:
    """Memory that a launch may touch, and which program read and wrote each of its bytes."""

    name: str
    start: int
    end: int
    reader: NDArray[np.int32] = field(init=False)
    writer: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        self.reader = np.full(self.end - self.start, NOBODY, np.int32)
        self.writer = np.full(self.end - self.start, NOBODY, np.int32)


class Probe:
    """See the module. Needs TRITON_INTERPRET=1; blocks do not nest."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.traffic: dict[tuple[str, str], Traffic] = {}
        self._watched: dict[str, Tensor] = {}
        self._kernel = ""
        self._regions: list[Region] = []
        self._originals: list[tuple[type, str, Any]] = []

    def watch(self, name: str, tensor: Tensor) -> None:
        """Let kernels reach `tensor` through an address that they read from memory."""
        self._watched[name] = tensor

    def loaded(self, kernel: str | None = None, argument: str | None = None) -> int:
        """Bytes loaded, by all kernels and from all arguments where none is named."""
        return sum(traffic.loaded for traffic in self._select(kernel, argument))

    def stored(self, kernel: str | None = None, argument: str | None = None) -> int:
        """Bytes stored, likewise."""
        return sum(traffic.stored for traffic in self._select(kernel, argument))

    def table(self) -> str:
        """One line per kernel and argument."""
        lines = [f"{'kernel':28} {'argument':24} {'loaded':>12} {'(unique)':>12} {'stored':>12} {'(unique)':>12}"]
        for (kernel, argument), t in self.traffic.items():
            numbers = (t.loaded, t.unique_loaded, t.stored, t.unique_stored)
            lines.append(f"{kernel:28} {argument:24} " + " ".join(f"{n:12,}" for n in numbers))
        return "\n".join(lines)

    def _select(self, kernel: str | None, argument: str | None) -> list[Traffic]:
        return [
            traffic
            for (its_kernel, its_argument), traffic in self.traffic.items()
            if kernel in (None, its_kernel) and (argument is None or argument in its_argument.split("="))
        ]

    def __enter__(self) -> Probe:
        self._patch(InterpreterBuilder, "create_masked_load", self._load)
        self._patch(InterpreterBuilder, "create_masked_store", self._store)
        self._patch(GridExecutor, "__call__", self._launch)
        for name in ("create_atomic_rmw", "create_atomic_cas"):
            self._patch(InterpreterBuilder, name, self._atomic)
        return self

    def __exit__(self, *exception: object) -> None:
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)

    def _patch(self, owner: type, name: str, replacement: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        self._originals.append((owner, name, original))
        setattr(owner, name, lambda instance, *args, **kwargs: replacement(original, instance, *args, **kwargs))

    def _launch(self, original: Callable[..., Any], executor: GridExecutor, *args: Any, **kwargs: Any) -> None:
        self._kernel = executor.fn.__name__
        self.launches[self._kernel] += 1
        known = {k: v for k, v in kwargs.items() if k in executor.arg_names}
        arguments = inspect.getcallargs(executor.fn, *args, **known)
        tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        self._regions = regions(tensors | self._watched)
        try:
            original(executor, *args, **kwargs)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ProbeError):
                cause = cause.__cause__
            if cause is not None:
                raise cause from None
            raise
        finally:
            for region in self._regions:
                traffic = self._traffic(region)
                traffic.unique_loaded += int((region.reader != NOBODY).sum())
                traffic.unique_stored += int((region.writer != NOBODY).sum())

    def _load(
        self, original: Callable[..., Any], builder: Any, ptrs: TensorHandle, mask: TensorHandle, other: Any, *rest: Any
    ) -> TensorHandle:
        dtype = ptrs.get_element_ty()
        if other is None:
            other = TensorHandle(np.full(ptrs.data.shape, undefined(dtype), _get_np_dtype(dtype)), dtype)
        program = _program(builder)
        for region, offsets in self._lanes(ptrs, mask, "reads"):
            self._traffic(region).loaded += offsets.size
            self._check(region, offsets, program, [region.writer], "written")
            before = region.reader[offsets]
            region.reader[offsets] = np.where((before == NOBODY) | (before == program), program, SEVERAL)
        return original(builder, ptrs, mask, other, *rest)

    def _store(
        self, original: Callable[..., Any], builder: Any, ptrs: TensorHandle, value: Any, mask: TensorHandle, *rest: Any
    ) -> Any:
        program = _program(builder)
        for region, offsets in self._lanes(ptrs, mask, "writes"):
            self._traffic(region).stored += offsets.size
            self._check(region, offsets, program, [region.writer, region.reader], "touched")
            region.writer[offsets] = program
        return original(builder, ptrs, value, mask, *rest)

    def _atomic(self, *_: Any) -> None:
        raise ProbeError(f"{self._kernel}: an atomic operation, whose order is not deterministic")

    def _traffic(self, region: Region) -> Traffic:
        return self.traffic.setdefault((self._kernel, region.name), Traffic())

    def _lanes(self, ptrs: TensorHandle, mask: TensorHandle, verb: str) -> list[tuple[Region, NDArray[np.int64]]]:
        """The bytes that an access touches, as offsets into each region that it meets."""
        size = max(1, ptrs.get_element_ty().primitive_bitwidth // 8)
        lanes = ptrs.data[np.broadcast_to(mask.data, ptrs.data.shape)]
        left = np.ones(lanes.size, bool)
        found = []
        for region in self._regions:
            inside = left & (lanes >= region.start) & (lanes + np.uint64(size) <= region.end)
            if inside.any():
                offsets = (lanes[inside] - np.uint64(region.start)).astype(np.int64)
                found.append((region, (offsets[:, None] + np.arange(size)).ravel()))
                left &= ~inside
        if left.any():
            raise ProbeError(
                f"{self._kernel} {verb} out of bounds: {int(left.sum())} of {lanes.size} lanes, the first at "
                f"{self._nearest(int(lanes[left][0]))}"
            )
        return found

    def _nearest(self, address: int) -> str:
        region = min(self._regions, key=lambda r: max(r.start - address, address - r.end))
        return f"byte {address - region.start} of {region.name}, which has {region.end - region.start}"

    def _check(
        self, region: Region, offsets: NDArray[np.int64], program: int, others: list[NDArray[np.int32]], verb: str
    ) -> None:
        for other in others:
            before = other[offsets]
            if ((before != NOBODY) & (before != program)).any():
                raise ProbeError(
                    f"{self._kernel}: a race: program {program} meets bytes of {region.name} {verb} by another"
                )


def regions(tensors: dict[str, Tensor]) -> list[Region]:
    """The bytes from each tensor's first to its last element; tensors that overlap share one region, named `a=b`."""
    spans = []
    for name, tensor in tensors.items():
        if tensor.numel():
            last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
            spans.append((tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size(), name))
    merged: list[tuple[int, int, str]] = []
    for start, end, name in sorted(spans, key=lambda span: span[:2]):
        if merged and start < merged[-1][1]:
            first, last, names = merged[-1]
            merged[-1] = (first, max(last, end), f"{names}={name}")
        else:
            merged.append((start, end, name))
    return [Region(name, start, end) for start, end, name in merged]


def undefined(dtype: tl.dtype) -> Any:
    """What a lane reads that its mask switches off without saying what instead."""
    if dtype == tl.bfloat16:
        return BFLOAT16_NAN
    numpy_dtype = _get_np_dtype(dtype)
    if numpy_dtype.kind == "f":
        return np.nan
    return np.iinfo(numpy_dtype).min if numpy_dtype.kind == "i" else 1


def _program(builder: Any) -> int:
    """The running program's number within its grid."""
    (x, y, z), (_, ny, nz) = builder.grid_idx, builder.grid_dim
    return (x * ny + y) * nz + z
