"""`centerdet check | convert | split | download`: datasets in VOC, COCO and YOLO format."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from ..data.download import download_voc
from ..data.formats import Format, keep_classes, read_dataset, write_dataset
from ..data.formats import convert as convert_data
from ..data.split import split as split_data
from ..errors import ConfigError
from ..files import new_folder
from ..training.config import TrainConfig
from .options import in_a_folder
from .show import console, errors

__all__ = ["check", "convert", "download", "split"]

Root = Annotated[Path, typer.Argument(help="folder or file of the dataset")]
Names = Annotated[list[str] | None, typer.Option(help="classes to keep, in their order; else all of the dataset's")]
To = Annotated[Format, typer.Option(help="format to write")]
Link = Annotated[bool, typer.Option("--link", help="hard-link images instead of copying")]
AsJson = Annotated[bool, typer.Option("--json", help="print what was written, in numbers, as JSON")]
Quiet = Annotated[bool, typer.Option("--quiet", help="print nothing but errors")]


def check(
    data: Root,
    split: Annotated[
        list[str] | None, typer.Option(help="split to check, such as 2007:train; again for more; by default all")
    ] = None,
    names: Names = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="also draw 16 augmented training images, with boxes and heatmaps, into this file (.jpg)",
            callback=in_a_folder,
            dir_okay=False,
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="of the input, px: for the ceiling and the sheet")] = TrainConfig.sizes[-1],
    stride: Annotated[int, typer.Option(help="px between the cells of the output grid, likewise")] = TrainConfig.stride,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print what is wrong, no progress and no statistics")] = False,
) -> None:
    """Say everything that is wrong with a dataset, and what is in it.

    Every image is decoded. Errors make the exit code 1; notes ask for a look. The ceiling is the mAP that perfect
    outputs of the network would reach: below 100 where objects share a cell of its grid, or overlap so much that one
    is taken for the other.
    """
    from ..draw import file_format, write_image
    from ..inspection.ceiling import measure_ceiling
    from ..inspection.check import check as check_data
    from ..inspection.contact_sheet import draw_sheet

    try:
        config = TrainConfig(str(data), "", sizes=(size,), stride=stride)
        if sheet:
            file_format(sheet)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    if stride not in (4, 8):
        raise typer.BadParameter(f"stride: want 4 or 8, got {stride}")
    hidden = quiet or as_json or not errors.is_terminal
    follow = partial(track, console=errors, disable=hidden)
    splits = {one: [one] for one in split} if split else None
    report = check_data(data, splits, names=names, progress=partial(follow, description="check"))
    statistics = {
        one: found
        | {
            "ceiling": measure_ceiling(
                report.sets[one], size=size, stride=stride, progress=partial(follow, description="ceiling")
            )
        }
        for one, found in report.statistics.items()
    }
    report = replace(report, statistics=statistics)
    text = json.dumps(report.to_dict()) if as_json else "\n".join(report.lines(statistics=not quiet))
    console.out(text)
    if sheet and report.sets:
        chosen = next((one for one in report.sets if one.endswith("train")), next(iter(report.sets)))
        write_image(sheet, draw_sheet(report.sets[chosen], config))
    if not report.ok:
        raise typer.Exit(1)


def convert(
    data: Root,
    out: Annotated[Path, typer.Argument(help="new folder")],
    to: To,
    split: Annotated[list[str], typer.Option(help="NEW=SOURCE, such as train=2007:train; again for more")],
    names: Names = None,
    link: Link = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write splits of a dataset into a new folder in another format.

    Several sources of one NEW are joined. The first problem ends it, and no folder is left: `check` tells them all.
    """
    splits: dict[str, list[str]] = {}
    for new, source in _named(split, "--split", "NEW=SOURCE, such as train=2007:train"):
        splits.setdefault(new, []).append(source)
    _show(convert_data(data, out, to, splits, names=names, placing="link" if link else "copy"), as_json, quiet)


def split(
    data: Root,
    out: Annotated[Path, typer.Argument(help="new folder")],
    part: Annotated[list[str], typer.Option(help="NEW=SHARE, such as train=0.8; again for more")],
    source: Annotated[list[str], typer.Option(help="split to take apart; again for more, joined")],
    group_by: Annotated[
        str, typer.Option(help="'folder', or a regular expression on file names: one group, one part")
    ] = "",
    to: To = "voc",
    seed: Annotated[int, typer.Option(help="of the draw: the same seed and images, the same parts")] = 0,
    names: Names = None,
    link: Link = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take a dataset apart at random, classes in like shares, no group on both sides."""
    try:
        shares = {new: float(share) for new, share in _named(part, "--part", "NEW=SHARE, such as train=0.8")}
    except ValueError as error:
        raise typer.BadParameter(f"--part: want NEW=SHARE, such as train=0.8: {error}") from error
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise typer.BadParameter(f"--part: want shares above 0 that sum to 1, got {' and '.join(part)}")
    [dataset] = keep_classes([read_dataset(data, source)], names or ())
    parts = split_data(dataset, shares, seed=seed, group_by=group_by or None)
    with new_folder(out) as draft:
        written = {
            new: write_dataset(samples, draft, new, to, placing="link" if link else "copy", add=True)
            for new, samples in parts.items()
        }
    _show(written, as_json, quiet)


def download(
    out: Annotated[Path, typer.Argument(help="folder to put VOCdevkit into")],
    year: Annotated[str, typer.Option(help="2007 or 2012")] = "2007",
    split: Annotated[list[str] | None, typer.Option(help="train, val, trainval, test; again for more")] = None,
) -> None:
    """Fetch VOC from its home, over the network, with checksums."""
    console.out(str(download_voc(out, year, split or ["trainval"])))


def _named(pairs: list[str], option: str, form: str) -> list[tuple[str, str]]:
    """Words of an option such as NEW=SOURCE as pairs."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise typer.BadParameter(f"{option} {pair}: want {form}")
    return [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]


def _show(written: Mapping[str, Mapping[str, int]], as_json: bool, quiet: bool) -> None:
    """What was written by split, in numbers."""
    if as_json:
        console.out(json.dumps(written))
    elif not quiet:
        one = re.compile(r"s\b")  # of the first word that ends so: "difficult flags lost"
        for new, counts in written.items():
            told = [f"{number} {one.sub('', what, 1) if number == 1 else what}" for what, number in counts.items()]
            console.out(f"{new}: {', '.join(told)}")
