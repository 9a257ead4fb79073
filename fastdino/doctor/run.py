"""The command `fastdino doctor`: the machine described, every kernel examined on its GPU, the unsound switched off."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastdino.config import DoctorConfig
from fastdino.doctor import record
from fastdino.doctor.environment import choices, environment
from fastdino.doctor.findings import Finding
from fastdino.doctor.timing import copy_bandwidth
from fastdino.errors import CheckFailed
from fastdino.implementation import OPERATIONS, choose, kernels, why_no_triton

# All kernels together are compiled and examined in less than a minute; what takes longer hangs.
TIME_LIMIT_SECONDS = 180


def run(config: DoctorConfig) -> dict[str, object]:
    """Print what was found; returns the same as plain values.

    Without a GPU that could run kernels there is none to examine, and nothing is wrong. Raises CheckFailed, once all is
    printed, if a kernel is not sound: from then on `auto` takes PyTorch for its operation on this kind of GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = Console(stderr=config.json)
    found = environment(device)
    for name, value in found.items():
        console.print(f"{name:17} {escape(value)}", highlight=False, soft_wrap=True)
    obstacle = "there is no GPU" if device.type != "cuda" else why_no_triton(device) or _why_interpreted()
    kept = True
    findings = [] if obstacle else examine_all(console)
    copied = copy_bandwidth(device) if findings and not obstacle else None
    if obstacle:
        console.print(f"\nNo kernel was examined: {obstacle}.", highlight=False, soft_wrap=True)
    else:
        console.print(table(findings, copied))
        kept = remember(device, findings)
    chosen = choices(device)
    console.print("\nTraining takes here:", highlight=False)
    for operation, choice in chosen.items():
        console.print(f"{operation:17} {escape(choice)}", highlight=False, soft_wrap=True)
    report: dict[str, object] = {
        "environment": found,
        "examined": not obstacle,
        "kernels": [dataclasses.asdict(finding) for finding in findings],
        "copy_bytes_per_second": copied,
        "choices": chosen,
    }
    if config.json:
        print(json.dumps(report, indent=2))
    faults = [finding.fault for finding in findings if finding.fault]
    if faults:
        remedy = (
            "Training does without what is wrong"
            if kept
            else "This cannot be remembered, because the cache folder cannot be written to: train with "
            "--implementation torch"
        )
        raise CheckFailed(f"{'; '.join(faults)}. {remedy}; please report it.")
    return report


def examine_all(console: Console) -> list[Finding]:
    """Every operation in a process of its own, under a line that says which."""
    findings = []
    for operation in OPERATIONS:
        with console.status(f"examining {operation}"):
            findings += examine(operation)
    return findings


def examine(operation: str, time_limit: float = TIME_LIMIT_SECONDS) -> list[Finding]:
    """The findings about an operation's kernels; one that ends or stops its process is a finding, too."""
    command = [sys.executable, "-m", "fastdino.doctor.examine", operation]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=time_limit)
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
        ending = f"did not end within {time_limit:.0f} s"
    else:
        output = process.stdout
        last_words = process.stderr.strip().splitlines()[-1:] or [""]
        ending = f"ended with code {process.returncode}: {last_words[0]}" if process.returncode else ""
    findings = list(_parsed(output))
    if not findings:
        ending = ending or "found nothing out"
    if ending:
        findings.append(Finding(operation, "all kernels", fault=f"the examination of {operation} {ending}"))
    return findings


def _parsed(output: str) -> Iterator[Finding]:
    for line in output.splitlines():
        # What a compiler may print in between, and a line that was cut off with its process, are no findings.
        if line.startswith("{") and line.endswith("}"):
            yield Finding(**json.loads(line))


def _why_interpreted() -> str:
    """Verdicts about a GPU must not come from the interpreter, which would also take hours."""
    interpreted = kernels("launch").interpreted()
    return "TRITON_INTERPRET is set, so that kernels do not run on the GPU; unset it" if interpreted else ""


def remember(device: torch.device, findings: list[Finding]) -> bool:
    """Switch off the operations with a fault, and no others. Returns whether that could be kept for other processes."""
    faults: dict[str, str] = {}
    for finding in findings:
        if finding.fault:
            faults.setdefault(finding.operation, f"fastdino doctor found that {finding.fault}")
    kept = record.keep(device, faults)
    choose.cache_clear()
    return kept is not None


def table(findings: list[Finding], copied: float | None) -> Table:
    """One row a kernel; shares are of what a plain copy reaches."""
    result = Table("operation", "kernel", "error / allowed", "time", "GB/s", "of a copy", "")
    for finding in findings:
        bandwidth = finding.bandwidth
        result.add_row(
            finding.operation,
            finding.kernel,
            "" if finding.error is None else f"{finding.error:.2f}",
            "" if finding.seconds is None else f"{finding.seconds * 1e6:,.0f} µs",
            "" if bandwidth is None else f"{bandwidth / 1e9:,.0f}",
            "" if bandwidth is None or not copied else f"{bandwidth / copied:.0%}",
            _verdict(finding),
        )
    return result


def _verdict(finding: Finding) -> str:
    if finding.fault:
        return f"[red]{escape(finding.fault)}[/]"
    return "[yellow]not examined: too little free memory[/]" if finding.error is None else "[green]sound[/]"
