"""`centerdet check | convert | split | pack | download`: datasets, written as VOC, COCO, YOLO, or a pack."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from ..data.download import download_voc
from ..data.formats import Format, find_packed, keep_classes, read_dataset, rename_classes, write_dataset
from ..data.formats import convert as convert_data
from ..data.pack import Pack, is_pack, write_pack
from ..data.records import ReadOptions
from ..data.split import split as split_data
from ..errors import ConfigError
from ..files import new_folder
from ..text import plural
from ..training.config import TrainConfig
from .options import Outside, Rescale, Strict, follow_reading, in_a_folder
from .show import bar, console, errors, warn

__all__ = ["check", "convert", "download", "pack", "split"]

Root = Annotated[Path, typer.Argument(help="folder or file of the dataset")]
Names = Annotated[list[str] | None, typer.Option(help="class to keep, in this order (repeatable); default: all")]
Rename = Annotated[list[str] | None, typer.Option(help="OLD=NEW class name; equal names are merged (repeatable)")]
To = Annotated[Format, typer.Option(help="format to write")]
Link = Annotated[bool, typer.Option("--link", help="hard-link images instead of copying")]
AsJson = Annotated[bool, typer.Option("--json", help="print the numbers of images and objects written, as JSON")]
Quiet = Annotated[bool, typer.Option("--quiet", help="print only errors")]


def check(
    data: Annotated[list[Path], typer.Argument(help="folder or file of the dataset (repeatable)")],
    split: Annotated[
        list[str] | None, typer.Option(help="split to check, such as 2007:train (repeatable); default: all")
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
    size: Annotated[int, typer.Option(help="input size in px, for the ceiling and --sheet")] = TrainConfig.sizes[-1],
    stride: Annotated[int, typer.Option(help="px between the cells of the output grid")] = TrainConfig.stride,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print only problems, no progress and no statistics")] = False,
) -> None:
    """List every problem of a dataset, and summarize its contents.

    Every image is decoded. The exit code is 1 if there are errors; notes are possible problems to review. The ceiling
    is the mAP of perfect network outputs. It is below 100 if objects share a cell of the output grid, or overlap so
    much that NMS removes one of them. With several datasets, images that two of them label differently are errors. Of a
    pack, the checksum of every image is verified, then the dataset that was packed is checked.
    """
    from ..draw import file_format, write_image
    from ..inspection.ceiling import measure_ceiling
    from ..inspection.check import check as check_data
    from ..inspection.check import compare_labels
    from ..inspection.contact_sheet import draw_sheet

    try:
        config = TrainConfig(tuple(map(str, data)), "", sizes=(size,), stride=stride)
        if sheet:
            file_format(sheet)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    if stride not in (4, 8):
        raise typer.BadParameter(f"stride: expected 4 or 8, got {stride}")
    hidden = quiet or as_json or not errors.is_terminal
    follow = partial(track, console=errors, disable=hidden)
    for root in filter(is_pack, data):
        opened = Pack(root)
        for number in follow(range(len(opened.sizes)), description="pack"):
            opened.read(number)
        if not (quiet or as_json):
            errors.out(f"{root}: {plural(len(opened.sizes), 'image')}, all checksums correct")
    data = [Path(find_packed(root)) for root in data]
    splits = {one: [one] for one in split} if split else None
    options = ReadOptions(rescale=rescale, allow_outside=allow_outside, progress=follow_reading(hidden))
    reports = [
        check_data(root, splits, names=names, progress=partial(follow, description="check"), options=options)
        for root in data
    ]
    different = [problem for one, other in combinations(reports, 2) for problem in compare_labels(one, other)]
    reports[-1] = replace(reports[-1], problems=(*reports[-1].problems, *different))
    plain, texts = {}, []
    for name, report in zip(map(str, data), reports, strict=True):
        ceilings = {
            one: measure_ceiling(samples, size=size, stride=stride, progress=partial(follow, description="ceiling"))
            for one, samples in report.sets.items()
        }
        statistics = {one: values | {"ceiling": ceilings[one]} for one, values in report.statistics.items()}
        plain[name] = replace(report, statistics=statistics).to_dict()
        remarks = {one: _describe_ceiling(ceiling) for one, ceiling in ceilings.items()}
        lines = report.lines(statistics=not quiet, remarks=remarks)
        texts.append("\n".join([name, *lines] if len(data) > 1 else lines))
    if as_json:
        console.out(json.dumps(plain if len(data) > 1 else plain[str(data[0])]))
    else:
        console.out("\n\n".join(texts))
    if sheet and reports[0].sets:
        sets = reports[0].sets
        write_image(
            sheet, draw_sheet(sets[next((one for one in sets if one.endswith("train")), next(iter(sets)))], config)
        )
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def convert(
    data: Root,
    out: Annotated[Path, typer.Argument(help="new folder")],
    to: To,
    split: Annotated[list[str], typer.Option(help="NEW=SOURCE, such as train=2007:train (repeatable)")],
    names: Names = None,
    rename: Rename = None,
    link: Link = False,
    strict: Strict = False,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write splits of a dataset into a new folder in another format.

    Several sources of one NEW are joined. Repaired, left-out, and noted data are printed as warnings. After an error,
    no folder is written.
    """
    splits: dict[str, list[str]] = {}
    for new, source in _pairs(split, "--split", "NEW=SOURCE, such as train=2007:train"):
        splits.setdefault(new, []).append(source)
    written = convert_data(
        data, out, to, splits, names=names, rename=dict(_pairs(rename or [], "--rename", "OLD=NEW")),
        placing="link" if link else "copy", notice=warn, strict=strict,
        options=ReadOptions("drop", rescale=rescale, allow_outside=allow_outside, progress=follow_reading(quiet)),
    )  # fmt: skip
    _show(written, as_json, quiet)


def split(
    data: Root,
    out: Annotated[Path, typer.Argument(help="new folder")],
    part: Annotated[list[str], typer.Option(help="NEW=SHARE, such as train=0.8 (repeatable)")],
    source: Annotated[list[str], typer.Option(help="split to divide (repeatable: joined)")],
    group_by: Annotated[
        str, typer.Option(help="'folder', or a regular expression for file names: a group stays in one part")
    ] = "",
    to: To = "voc",
    seed: Annotated[int, typer.Option(help="random seed: the same seed and images give the same parts")] = 0,
    names: Names = None,
    rename: Rename = None,
    link: Link = False,
    strict: Strict = False,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Split a dataset into random, class-balanced subsets, keeping groups together."""
    try:
        shares = {new: float(share) for new, share in _pairs(part, "--part", "NEW=SHARE, such as train=0.8")}
    except ValueError as error:
        raise typer.BadParameter(f"--part: expected NEW=SHARE, such as train=0.8: {error}") from error
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise typer.BadParameter(f"--part: expected shares above 0 that sum to 1, got {' and '.join(part)}")
    new_names = dict(_pairs(rename or [], "--rename", "OLD=NEW"))
    options = ReadOptions("drop", rescale=rescale, allow_outside=allow_outside, progress=follow_reading(quiet))
    dataset = read_dataset(data, source, notice=warn, strict=strict, options=options)
    [dataset] = keep_classes(rename_classes([dataset], new_names), names or ())
    parts = split_data(dataset, shares, seed=seed, group_by=group_by or None)
    with new_folder(out) as draft:
        written = {
            new: write_dataset(samples, draft, new, to, placing="link" if link else "copy", add=True)
            for new, samples in parts.items()
        }
    _show(written, as_json, quiet)


def pack(
    data: Root,
    out: Annotated[Path, typer.Option(help="folder of the pack; an unfinished pack is continued")],
    size: Annotated[
        int, typer.Option(min=1, help="longer side in px of larger images: 1.25 times the largest size to train at")
    ] = max(TrainConfig.sizes) * 5 // 4,
    split: Annotated[list[str] | None, typer.Option(help="split to pack (repeatable); default: train")] = None,
    strict: Strict = False,
    rescale: Rescale = False,
    allow_outside: Outside = False,
    quiet: Quiet = False,
) -> None:
    """Decode and shrink the images of a large training set into one file, for `train --data`.

    If the command is interrupted, repeat it: it continues where it stopped.
    """
    options = ReadOptions("keep", rescale=rescale, allow_outside=allow_outside, progress=follow_reading(quiet))
    data, splits = Path(find_packed(data)), split or TrainConfig.train
    dataset = read_dataset(data, splits, notice=warn, strict=strict, options=options)
    with bar("pack", len(dataset), quiet) as (progress, task):
        write_pack(dataset, data, splits, out, size, progress=lambda done: progress.update(task, completed=done))
    if not quiet:
        console.out(f"{out}: {plural(len(dataset), 'image')}")


def download(
    out: Annotated[Path, typer.Argument(help="folder for VOCdevkit")],
    year: Annotated[str, typer.Option(help="2007 or 2012")] = "2007",
    split: Annotated[list[str] | None, typer.Option(help="train, val, trainval or test (repeatable)")] = None,
) -> None:
    """Download PASCAL VOC and verify its checksums."""
    console.out(str(download_voc(out, year, split or ["trainval"])))


def _describe_ceiling(ceiling: Mapping[str, Any]) -> str:
    reached = "-" if ceiling["voc-area"] is None else f"{100 * ceiling['voc-area']:.1f}"
    objects, shared = plural(ceiling["objects"], "object"), ceiling["without own cell"]
    return (
        f"ceiling at {ceiling['size']} px, stride {ceiling['stride']}: voc-area {reached}; of {objects} {shared} in "
        f"another's cell, {ceiling['lost']} lost"
    )


def _pairs(given: list[str], option: str, form: str) -> list[tuple[str, str]]:
    """Split options such as NEW=SOURCE into pairs."""
    for pair in given:
        if not all(pair.partition("=")):
            raise typer.BadParameter(f"{option} {pair}: expected {form}")
    return [(name, value) for name, _, value in (pair.partition("=") for pair in given)]


def _show(written: Mapping[str, Mapping[str, int]], as_json: bool, quiet: bool) -> None:
    """Print the numbers of images and objects written, by split."""
    if as_json:
        console.out(json.dumps(written))
    elif not quiet:
        plural_end = re.compile(r"s\b")  # of the first word that has one: "difficult flags lost"
        for new, counts in written.items():
            parts = [
                f"{number} {plural_end.sub('', what, 1) if number == 1 else what}" for what, number in counts.items()
            ]
            console.out(f"{new}: {', '.join(parts)}")
