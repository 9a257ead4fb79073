"""pack.json: what the shards beside it hold, and from what they were made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from fastdino.errors import UserError
from fastdino.files import write_atomically

NAME = "pack.json"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the shards' content depends on; `transcodes` is whether progressive JPEGs could be rewritten."""

    pictures: int
    fingerprint: str
    short_side: int | None
    shard_mb: int
    transcodes: bool
    version: int = _VERSION


@dataclasses.dataclass
class Shard:
    """One finished tar file, `size` bytes long, that ends before picture `end` of the data set."""

    name: str
    end: int
    size: int = 0
    pictures: int = 0
    bytes_before: int = 0
    transcoded: int = 0
    shrunk: int = 0
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Manifest:
    """The settings of a pack and its finished shards."""

    settings: Settings
    shards: list[Shard] = dataclasses.field(default_factory=list)

    @property
    def end(self) -> int:
        """The first picture that no shard has dealt with."""
        return self.shards[-1].end if self.shards else 0

    @property
    def skipped(self) -> dict[str, str]:
        return {name: reason for shard in self.shards for name, reason in shard.skipped.items()}

    def save(self, folder: Path) -> None:
        write_atomically(folder / NAME, json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False))


def continued(folder: Path, settings: Settings) -> Manifest:
    """The manifest of an interrupted or finished pack in `folder`, or a new one.

    Raises UserError where the folder's shards were made from other pictures or otherwise, or are not what the manifest
    says.
    """
    remedy = "give another --output_dir, or delete that folder"
    path = folder / NAME
    if not path.exists():
        if any(folder.glob("*.tar")):
            raise UserError(f"{folder} holds tar files that fastdino pack did not write: give another --output_dir.")
        return Manifest(settings)
    try:
        content = json.loads(path.read_text())
        before = Settings(**content["settings"])
        shards = [Shard(**shard) for shard in content["shards"]]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {remedy}.") from error
    if not shards:
        return Manifest(settings)
    if before != settings:
        changed = ", ".join(_differences(before, settings))
        raise UserError(f"{folder} holds shards of another pack ({changed}): {remedy}.")
    for shard in shards:
        file = folder / shard.name
        if not file.exists() or file.stat().st_size != shard.size:
            raise UserError(f"{file} is missing or was changed: {remedy}.")
    return Manifest(settings, shards)


def _differences(before: Settings, now: Settings) -> list[str]:
    if before.version != now.version:
        return ["written by another version of fastdino"]
    if before.fingerprint != now.fingerprint:
        return ["its pictures have other names, labels or numbers"]
    names = {"short_side": "--short_side", "shard_mb": "--shard_mb", "transcodes": "rewriting of progressive JPEGs"}
    return [
        f"{text} was {getattr(before, name)} and is {getattr(now, name)}"
        for name, text in names.items()
        if getattr(before, name) != getattr(now, name)
    ]
