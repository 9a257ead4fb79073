"""The command `fastdino embed`: features of a folder's pictures in a file, with their names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from fastdino.config import EmbedConfig
from fastdino.data.sources import Source, open_source
from fastdino.errors import UserError
from fastdino.evaluate.backbone import backbone_of
from fastdino.evaluate.extractor import Extractor, extractor
from fastdino.evaluate.features import none_readable, report_skipped
from fastdino.evaluate.output import writing_to
from fastdino.evaluate.table import WRITERS, Rows
from fastdino.files import write_atomically
from fastdino.models.pretrained import Backbone


def run(config: EmbedConfig) -> None:
    """Write the features of all readable pictures in `data_path` to `output`, and list the others beside it.

    Raises UserError for everything that the user can mend; `output` is then as it was.
    """
    output = Path(config.output)
    write = WRITERS.get(output.suffix)
    if write is None:
        raise UserError(f"--output is {config.output!r}: give a file ending in {', '.join(WRITERS)}")
    source = open_source(config.data_path)
    backbone = backbone_of(config)
    skipped: dict[str, str] = {}
    with extractor(config) as extract, writing_to(output, "--output"):
        rows = _rows(config, source, backbone, skipped, extract)
        if not extract.world.is_main:
            # Helps with the features, and leaves the file to the first process.
            deque(rows, maxlen=0)
            return
        output.parent.mkdir(parents=True, exist_ok=True)
        count = write(output, backbone.embed_dim, rows)
        listing = output.with_name(f"{output.name}.skipped.txt")
        listing.unlink(missing_ok=True)
        if skipped:
            write_atomically(listing, "".join(f"{name}\t{reason}\n" for name, reason in skipped.items()))
    report_skipped(extract.console, skipped)
    extract.console.print(
        f"{output}: {count:,} pictures, {backbone.embed_dim} numbers each", highlight=False, soft_wrap=True
    )


def _rows(
    config: EmbedConfig, source: Source, backbone: Backbone, skipped: dict[str, str], extract: Extractor
) -> Iterator[Rows]:
    count = 0
    for batch in extract.stream(backbone.model, source, config.image_size or backbone.image_size, "Features"):
        skipped |= batch.skipped
        if not batch.indices:
            continue
        count += len(batch.indices)
        labels = [source.label(index) for index in batch.indices]
        classes = [source.classes[label] if label >= 0 else None for label in labels]
        yield Rows([source.name(index) for index in batch.indices], classes, batch.features.numpy())
    if not count:
        raise UserError(none_readable(skipped))
