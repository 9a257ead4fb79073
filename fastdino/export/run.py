"""The command `fastdino export`: write, load again, compare, and only then leave the result in its place."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from fastdino.config import ExportConfig
from fastdino.errors import UserError
from fastdino.evaluate.output import writing_to
from fastdino.export.card import model_card, run_folder
from fastdino.export.formats import FORMATS
from fastdino.export.plain import at_size
from fastdino.export.push import push
from fastdino.export.verify import cases, verify
from fastdino.files import atomic_path, write_atomically
from fastdino.models.pretrained import Backbone, load_backbone


def run(config: ExportConfig) -> None:
    """Export as `config` says and tell how to load the result."""
    console = Console()
    chosen = FORMATS[config.format]
    if not config.pretrained_weights or not config.output:
        raise UserError("give --pretrained_weights, and --output for the file or folder to write")
    if config.push_to_hub and config.format != "huggingface":
        raise UserError("--push_to_hub takes --format huggingface")
    backbone = load_backbone(
        config.pretrained_weights,
        arch=config.arch,
        patch_size=config.patch_size,
        checkpoint_key=config.checkpoint_key,
    )
    if config.image_size is not None:
        backbone = at_size(backbone, config.image_size)
    output = Path(config.output)
    with writing_to(output, "--output"):
        difference = export(backbone, config.format, output, fixed_size=config.image_size is not None)
        card = output / "README.md" if chosen.is_folder else output.with_name(f"{output.name}.md")
        usage = chosen.exporter().usage
        # Who reads the card has the file, wherever it lies.
        here = usage(Path(config.push_to_hub or output.name), backbone)
        write_atomically(card, model_card(backbone, config.format, here, run_folder(config.pretrained_weights)))
    lines = [f"{output} gives the model's features (largest difference {difference:.1e}). To load it:"]
    lines.append(usage(output, backbone))
    if chosen.note:
        lines.append(f"note: {chosen.note}")
    if config.push_to_hub:
        lines.append(f"Uploaded to {push(output, config.push_to_hub)}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def export(backbone: Backbone, format: str, output: Path, *, fixed_size: bool = False) -> float:
    """Write `backbone` to `output` in one of FORMATS, and compare what it gives with the model's features.

    With `fixed_size` a file that keeps the computation takes pictures of `backbone.image_size` alone. Returns the
    largest difference as a share of the largest feature.

    Raises UserError for an architecture or a place that the format cannot take and for a missing package, CheckFailed
    if the features differ by more than rounding, OSError. `output` is then as it was.
    """
    chosen = FORMATS[format]
    exporter = chosen.exporter()
    if output.is_dir() != chosen.is_folder and output.exists():
        wanted = "folder" if chosen.is_folder else "file"
        raise UserError(f"{output} exists and is no {wanted}, which --format {format} writes: give another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=output.parent) as folder:
        draft = Path(folder) / output.name
        exporter.write(backbone, draft, fixed_size)
        compared = cases(backbone, fixed_size or not chosen.keeps_code)
        difference = verify(exporter.load(draft, backbone), backbone, compared, chosen.tolerance)
        if chosen.is_folder:
            output.mkdir(exist_ok=True)
        for written in sorted(draft.iterdir()) if chosen.is_folder else [draft]:
            with atomic_path(output / written.name if chosen.is_folder else output) as place:
                written.replace(place)
    return difference
