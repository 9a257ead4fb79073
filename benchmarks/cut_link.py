"""Two machines train together, the link between them is cut, both end; started again, does the run end as if it held?

    python -m benchmarks.cut_link [--ranks_per_machine 2] [--seconds 10]

The machines are two network namespaces with host names of their own, joined by a virtual cable; torchrun runs
in each, with gloo. Needs root and `ip` (iproute2). At the end weights, center and moments must equal those of a run
whose link held, bit for bit. Exit code 1 if they do not, or if a side does not name in time who was lost.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.kills import draw_pictures, equal, settings
from fastdino import TrainConfig
from fastdino.cli import flags

# From the block that is set aside for measuring networks (RFC 2544).
ADDRESSES = ("198.18.0.1", "198.18.0.2")
PORT = 29500
EPOCHS = 8
# Seconds: what a process takes to find out who is silent, and torchrun to stop the others.
GRACE = 60.0
# Seconds for a whole run on a slow machine.
PATIENCE = 300.0
NAMED = re.compile(r"rank \d+ on machine-\w+ (?:gave no sign of life|reaches neither)[^;]*")


class Unavailable(Exception):
    """Why this machine cannot have network namespaces: one sentence."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """A network namespace, the host's name in it, its address, and its end of the cable."""

    namespace: str
    host: str
    address: str
    interface: str

    def command(self, *command: str) -> list[str]:
        """`command` as it runs on this machine."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.host]
        return ["ip", "netns", "exec", self.namespace, *named, *command]

    def set_link(self, state: str) -> None:
        """`up` or `down`."""
        ip("-n", self.namespace, "link", "set", self.interface, state)


def ip(*arguments: str) -> None:
    """iproute2's command. Raises Unavailable with what it says."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"`ip {' '.join(arguments)}` says: {done.stderr.strip()}")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two that reach each other and nobody else. Raises Unavailable."""
    if os.geteuid() or not shutil.which("ip"):
        raise Unavailable("network namespaces need root and the command `ip` of iproute2")
    pair = [
        Machine(f"fastdino-{letter}-{os.getpid()}", f"machine-{letter}", address, f"link-{letter}")
        for letter, address in zip("ab", ADDRESSES, strict=True)
    ]
    first, second = pair
    try:
        for machine in pair:
            ip("netns", "add", machine.namespace)
        ip(
            *("link", "add", first.interface, "netns", first.namespace, "type", "veth"),
            *("peer", "name", second.interface, "netns", second.namespace),
        )
        for machine in pair:
            ip("-n", machine.namespace, "address", "add", f"{machine.address}/24", "dev", machine.interface)
            ip("-n", machine.namespace, "link", "set", "lo", "up")
            machine.set_link("up")
        yield first, second
    finally:
        for machine in pair:
            subprocess.run(["ip", "netns", "delete", machine.namespace], capture_output=True)


def survive(folder: Path, machines: tuple[Machine, Machine], ranks: int, seconds: int) -> dict[str, Any]:
    """The figures of one experiment in the empty `folder`."""
    draw_pictures(folder / "pictures")
    peaceful, cut = (
        dataclasses.replace(
            settings(folder / "pictures", folder / name, EPOCHS), batch_size_per_gpu=2, dist_timeout=seconds
        )
        for name in ("peaceful", "cut")
    )
    if any(wait(start(machines, peaceful, ranks, folder), PATIENCE)):
        raise SystemExit(f"the run failed before anybody cut a link:\n{said(folder, machines[0])}")
    running = start(machines, cut, ranks, folder)
    while not (Path(cut.output_dir) / "log.txt").exists() and running[0].poll() is None:
        time.sleep(0.01)
    machines[1].set_link("down")
    began = time.monotonic()
    named: list[str] = []
    while len(named) < len(machines) and time.monotonic() < began + seconds + GRACE:
        time.sleep(0.1)
        named = [sentence[0] for machine in machines if (sentence := NAMED.search(said(folder, machine)))]
    took = time.monotonic() - began
    machines[1].set_link("up")
    # Only now: the far side's torchrun waits for its own store, which was behind the cut.
    codes = wait(running, GRACE)
    if any(wait(start(machines, cut, ranks, folder), PATIENCE)):
        raise SystemExit(f"the run did not go on once the link was back:\n{said(folder, machines[0])}")
    return {
        "ranks": 2 * ranks,
        "exit codes of torchrun": codes,
        "seconds until both sides named the other": round(took, 1),
        "named": named,
        "equal": equal(Path(peaceful.output_dir), Path(cut.output_dir)),
    }


def start(
    machines: tuple[Machine, Machine], config: TrainConfig, ranks: int, folder: Path
) -> list[subprocess.Popen[bytes]]:
    """torchrun on each of them; what it says goes into a file in `folder`."""
    running = []
    for machine in machines:
        command = machine.command(
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--nproc_per_node={ranks}"),
            *("--rdzv_backend=c10d", f"--rdzv_endpoint={ADDRESSES[0]}:{PORT}", "--rdzv_id=cut_link"),
            # Nothing resolves the machines' names; torchrun itself waits for the other machine, too.
            f"--rdzv_conf=is_host={machine.address == ADDRESSES[0]},read_timeout={config.dist_timeout}",
            *(f"--local_addr={machine.address}", "-m", "fastdino", "train", *flags(config)),
        )
        environment = os.environ | {"GLOO_SOCKET_IFNAME": machine.interface, "OMP_NUM_THREADS": "1"}
        with (folder / f"{machine.host}.txt").open("wb") as errors:
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors))
    return running


def wait(running: list[subprocess.Popen[bytes]], seconds: float) -> list[int | None]:
    """Their exit codes; None, once it is stopped, for one that has not ended in so many seconds."""
    deadline = time.monotonic() + seconds
    codes: list[int | None] = []
    for process in running:
        try:
            codes.append(process.wait(timeout=max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            # torchrun stops its processes, and kills those that do not heed it.
            process.terminate()
            process.wait()
            codes.append(None)
    return codes


def said(folder: Path, machine: Machine) -> str:
    """What a machine's latest torchrun and its processes wrote for people."""
    return (folder / f"{machine.host}.txt").read_text(errors="replace")


def main() -> int:
    """Train once with a link that holds, once with one that is cut, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks_per_machine", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=10, help="--dist_timeout of the runs")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder, two_machines() as machines:
            figures = survive(Path(folder), machines, arguments.ranks_per_machine, arguments.seconds)
    except Unavailable as reason:
        print(f"cut_link: {reason}", file=sys.stderr)
        return 2
    print(json.dumps(figures, indent=2))
    return 0 if figures["equal"] and len(figures["named"]) == 2 and 0 not in figures["exit codes of torchrun"] else 1


if __name__ == "__main__":
    sys.exit(main())
