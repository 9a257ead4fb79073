"""What is printed and written: medians, spreads and ratios to the original's loader in the same round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from benchmarks.loader_peers import BASELINE, PEERS
from benchmarks.loader_peers.measuring import DECODE_ONLY, Measurement

Results = Mapping[str, Mapping[int, Sequence[Measurement]]]
"""Measurements by peer and number of threads, one a round."""
Rate = Callable[[Measurement], float]

# Among the loader's stages: time in which its threads, or the consumer, had nothing to do.
_NO_WORK = ("idle", "waiting")


def wall(measurement: Measurement) -> float:
    return measurement.per_second


def cpu(measurement: Measurement) -> float:
    return measurement.per_cpu_second


def ratios(above: Sequence[Measurement], below: Sequence[Measurement], rate: Rate) -> list[float]:
    """Round by round, so that a machine that slows down between rounds slows both sides."""
    return [rate(first) / rate(second) for first, second in zip(above, below, strict=True)]


def markdown(results: Results, threads: int) -> str:
    """The table of one number of threads, the fastest per CPU-second first."""
    rows = [
        "| peer | img/s | ratio | img per CPU-s | ratio | spread | to one thread | differs in |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    measured = [name for name in results if threads in results[name]]
    for name in sorted(measured, key=lambda name: -median(map(cpu, results[name][threads]))):
        cells = [
            name,
            f"{median(map(wall, results[name][threads])):.1f}",
            _times(_to_baseline(results, name, threads, wall)),
            f"{median(map(cpu, results[name][threads])):.1f}",
            _times(_to_baseline(results, name, threads, cpu)),
            _spread(_to_baseline(results, name, threads, cpu)),
            _times(_to_one_thread(results, name, threads)),
            PEERS[name].remark,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def summary(results: Results, name: str, threads: int) -> dict[str, float | list[float]]:
    """One row of the table as numbers, with every round's."""
    measurements = results[name][threads]
    return {
        "images_per_second": median(map(wall, measurements)),
        "images_per_cpu_second": median(map(cpu, measurements)),
        "rounds_images_per_second": [wall(each) for each in measurements],
        "rounds_images_per_cpu_second": [cpu(each) for each in measurements],
        "rounds_ratio": _to_baseline(results, name, threads, wall),
        "rounds_ratio_per_cpu_second": _to_baseline(results, name, threads, cpu),
        "rounds_ratio_to_one_thread": _to_one_thread(results, name, threads),
    }


def stage_table(milliseconds: Mapping[str, float]) -> str:
    """Stages of our loader with their share of the sum, and what Pillow's decoding takes."""
    stages = {name: value for name, value in milliseconds.items() if name not in (*_NO_WORK, DECODE_ONLY)}
    total = sum(stages.values())
    rows = ["| stage | ms a picture | share |", "|---|---:|---:|"]
    rows += [f"| {name} | {value:.3f} | {value / total:.0%} |" for name, value in stages.items()]
    rows.append(f"| sum | {total:.3f} | {1e3 / total:.0f} img/s |")
    only = milliseconds[DECODE_ONLY]
    rows.append(f"| {DECODE_ONLY} | {only:.3f} | {1e3 / only:.0f} img/s |")
    return "\n".join(rows)


def _to_baseline(results: Results, name: str, threads: int, rate: Rate) -> list[float]:
    baseline = results.get(BASELINE, {}).get(threads)
    return ratios(results[name][threads], baseline, rate) if baseline else []


def _to_one_thread(results: Results, name: str, threads: int) -> list[float]:
    one = results[name].get(1)
    return ratios(results[name][threads], one, wall) if one and threads != 1 else []


def _times(values: Iterable[float]) -> str:
    found = list(values)
    return f"{median(found):.2f}x" if found else ""


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}" if values else ""
