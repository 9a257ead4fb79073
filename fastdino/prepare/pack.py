"""The command `fastdino pack`: a data set rewritten as tar shards that are quick to read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from rich.console import Console

from fastdino import native
from fastdino.config import PackConfig
from fastdino.cores import usable_cores
from fastdino.data.reading import UnreadableImage, reason_of
from fastdino.data.sources import Source, open_source
from fastdino.errors import UserError
from fastdino.evaluate.features import progress_bar
from fastdino.evaluate.output import writing_to
from fastdino.files import write_atomically
from fastdino.prepare.manifest import Manifest, Settings, Shard, continued
from fastdino.prepare.members import Members
from fastdino.prepare.rewrite import rewrite
from fastdino.prepare.shards import Packed, member, numbered, write_shard
from fastdino.prepare.threads import in_order

SKIPPED_NAME = "skipped.txt"


def run(config: PackConfig) -> Manifest:
    """Write the shards, `pack.json` and, if pictures are left out, `skipped.txt` into `config.output_dir`.

    A shard is there whole or not at all; going on after an interruption, or packing again, gives the same bytes. Raises
    UserError for everything that the user can mend.
    """
    _require_sensible(config)
    console = Console()
    source = open_source(config.data_path)
    members = Members(source)
    settings = Settings(
        len(source), members.fingerprint, config.short_side, config.shard_mb, transcodes=native.available()
    )
    with writing_to(config.output_dir, "--output_dir") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = continued(folder, settings)
        for line in _announcements(config, manifest):
            _say(console, line)
        manifest.save(folder)
        _write_shards(config, source, members, manifest, console)
        if manifest.skipped:
            lines = "".join(f"{name}\t{reason}\n" for name, reason in sorted(manifest.skipped.items()))
            write_atomically(folder / SKIPPED_NAME, lines)
    _say(console, _summary(manifest, folder))
    return manifest


def _require_sensible(config: PackConfig) -> None:
    for flag in ("data_path", "output_dir"):
        if not getattr(config, flag):
            raise UserError(f"give --{flag}: a folder")
    if Path(config.data_path).resolve() == Path(config.output_dir).resolve():
        raise UserError("--output_dir is --data_path: give the shards a folder of their own")
    for flag in ("short_side", "shard_mb"):
        value = getattr(config, flag)
        if value is not None and value < 1:
            raise UserError(f"--{flag} is {value}: give 1 or more")


def _announcements(config: PackConfig, manifest: Manifest) -> Iterator[str]:
    if config.short_side is not None:
        yield (
            f"--short_side {config.short_side} changes the recipe: crops are cut out of smaller pictures, and a local "
            f"crop of 5 % of the area is some {round(0.05**0.5 * config.short_side)} pixels wide before it is resized"
        )
    if not manifest.settings.transcodes:
        yield f"progressive JPEGs stay as they are: {native.why_not()}"
    if 0 < manifest.end < manifest.settings.pictures:
        yield f"going on after {manifest.shards[-1].name}"


def _write_shards(config: PackConfig, source: Source, members: Members, manifest: Manifest, console: Console) -> None:
    folder = Path(config.output_dir)
    # What a killed run could not clear away.
    for leftover in folder.glob(".shard-*.tar.*.tmp"):
        leftover.unlink()
    start, total = manifest.end, len(source)
    threads = max(1, min(config.num_workers, usable_cores()))
    work = partial(_packed, source, members, config.short_side)
    with (
        warnings.catch_warnings(),
        progress_bar(console) as progress,
        closing(in_order(work, range(start, total), threads)) as packed,
    ):
        warnings.simplefilter("ignore")  # Pillow's are about pictures that it does not name
        tracked = progress.track(packed, total=total, completed=start, description="Packing")
        for number, group in groupby(numbered(tracked, len(manifest.shards), config.shard_mb), itemgetter(0)):
            shard = Shard(f"shard-{number:06}.tar", start)
            write_shard(folder, shard, map(itemgetter(1), group))
            manifest.shards.append(shard)
            manifest.save(folder)


def _packed(source: Source, members: Members, short_side: int | None, index: int) -> Packed:
    name = source.name(index)
    try:
        data = source.read(index)
    except OSError as error:
        return Packed(index, name, [], why_not=reason_of(error))
    try:
        rewritten = rewrite(data, short_side)
    except UnreadableImage as error:
        return Packed(index, name, [], why_not=str(error))
    ending = "jpg" if rewritten.how == "shrunk" else None
    files = [member(members.picture(index, ending), rewritten.data)]
    if class_file := members.class_file(index):
        files.append(member(*class_file))
    return Packed(index, name, files, rewritten.how, len(data))


def _summary(manifest: Manifest, folder: Path) -> str:
    size, before, pictures, transcoded, shrunk = (
        sum(getattr(shard, name) for shard in manifest.shards)
        for name in ("size", "bytes_before", "pictures", "transcoded", "shrunk")
    )
    left_out = len(manifest.skipped)
    where = f" ({folder / SKIPPED_NAME} says why)" if left_out else ""
    return (
        f"{pictures:,} pictures in {len(manifest.shards):,} shards, {size / 1e6:,.1f} MB ({before / 1e6:,.1f} MB "
        f"before): {transcoded:,} progressive JPEGs made baseline with every pixel kept, {shrunk:,} shrunk, "
        f"{left_out:,} left out{where}. Train with --data_path {folder}"
    )


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
