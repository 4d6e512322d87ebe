"""`centerdet check | convert | split | download`: data sets in VOC, COCO and YOLO format."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from ..data.check import check as check_data
from ..data.formats import Format, read_dataset, write_dataset
from ..data.formats import convert as convert_data
from ..data.split import split as split_data
from ..data.voc import download_voc
from ..errors import ConfigError
from .show import console, errors

__all__ = ["check", "convert", "download", "split"]

Root = Annotated[Path, typer.Argument(help="folder or file of the data set")]
Names = Annotated[list[str] | None, typer.Option(help="classes in their order; else the data set's own")]


def _named(pairs: list[str]) -> list[tuple[str, str]]:
    """NEW=VALUE options as pairs."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(f"{wrong[0]}: want NEW=VALUE, such as train=2007:train")
    return [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]


def check(
    data: Root,
    names: Names = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print no progress")] = False,
) -> None:
    """Say everything that is wrong with a data set, and its statistics; exit code 1 if there are errors."""
    hidden = quiet or as_json or not errors.is_terminal
    report = check_data(data, names=names, progress=lambda rows: track(rows, "check", console=errors, disable=hidden))
    console.print(json.dumps(report.to_dict()) if as_json else str(report), markup=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)


def convert(
    data: Root,
    out: Annotated[Path, typer.Argument(help="new folder")],
    to: Annotated[Format, typer.Option(help="format to write")],
    split: Annotated[list[str], typer.Option(help="NEW=SOURCE, such as train=2007:train; again for more")],
    names: Names = None,
    link: Annotated[bool, typer.Option("--link", help="hard-link pictures instead of copying")] = False,
) -> None:
    """Write splits of a data set into a new folder in another format."""
    splits: dict[str, list[str]] = {}
    for new, source in _named(split):
        splits.setdefault(new, []).append(source)
    for new, counts in convert_data(data, out, to, splits, names=names, pictures="link" if link else "copy").items():
        console.print(f"{new}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def split(
    data: Root,
    out: Annotated[Path, typer.Argument(help="new folder, in VOC layout unless --to says otherwise")],
    part: Annotated[list[str], typer.Option(help="NEW=SHARE, such as train=0.8; again for more")],
    source: Annotated[list[str], typer.Option(help="splits to take apart")],
    group_by: Annotated[
        str, typer.Option(help="'folder', or a regular expression on file names: one group, one part")
    ] = "",
    to: Annotated[Format, typer.Option(help="format to write")] = "voc",
    seed: int = 0,
    names: Names = None,
    link: Annotated[bool, typer.Option("--link", help="hard-link pictures instead of copying")] = False,
) -> None:
    """Take a data set apart at random, classes in like shares, no group on both sides."""
    try:
        shares = {new: float(share) for new, share in _named(part)}
    except ValueError as error:
        raise ConfigError(f"--part: want NEW=SHARE, such as train=0.8: {error}") from error
    dataset = read_dataset(data, source, names=names)
    for new, samples in split_data(dataset, shares, seed=seed, group_by=group_by or None).items():
        counts = write_dataset(samples, out, new, to, pictures="link" if link else "copy", add=True)
        console.print(f"{new}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def download(
    out: Annotated[Path, typer.Argument(help="folder to put VOCdevkit into")],
    year: Annotated[str, typer.Option(help="2007 or 2012")] = "2007",
    split: Annotated[list[str] | None, typer.Option(help="train, val, trainval, test; again for more")] = None,
) -> None:
    """Fetch VOC from its home, with checksums: the one command that uses the network."""
    console.print(str(download_voc(out, year, split or ["trainval"])))
