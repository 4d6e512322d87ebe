"""What tiles gain and cost, with collages and with plain images: python scripts/tile_gain.py VOCdevkit

A collage is a square of VOC2007 val images of 375 x 500 px side by side, so that each object is a half or a third as
large in the network's input as it is alone. It is predicted without tiles, with tiles, and, as the upper limit, image
by image. Plain val images show the other extreme: objects that need no tiles.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import typer
from PIL import Image

from centerdet import Detector, evaluate
from centerdet.cli.show import bar
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import read_voc
from centerdet.images import load

SIZE = (375, 500)


def main(
    data: Path,
    weights: str = "voc",
    collages: int = 60,
    plain: int = 200,
    overlap: float = 0.2,
    threads: int | None = None,
) -> None:
    """Print voc-area mAP and time relative to no tiles."""
    detector = Detector.load(weights, device="cpu", threads=threads)
    val = read_voc(data, ["2007:val"], names=detector.names)
    chosen = np.random.default_rng(0).permutation(len(val))[:plain]
    print(f"overlap {overlap:g}\n\n| images | tile | voc-area | time |\n|---|---|--:|--:|")
    _compare(detector, f"{plain} of val", Dataset([val.samples[i] for i in chosen], val.names), [300], overlap)
    with tempfile.TemporaryDirectory() as folder:
        for count in (2, 3):
            parts = _draw_parts(val, count * count * collages)
            made = [
                _join(parts[start : start + count**2], count, Path(folder, f"{count}-{start}.png"))
                for start in range(0, len(parts), count**2)
            ]
            name = f"{collages} collages of {count} x {count}"
            _compare(detector, name, Dataset(made, val.names), [500, 375], overlap)
            single = Dataset(list(dict.fromkeys(parts)), val.names)
            _compare(detector, f"the images in them, {len(single)}", single, [], overlap)


def _draw_parts(val: Dataset, count: int) -> list[Sample]:
    """Images of the usual size in random order, repeated from the first where they run out."""
    usual = [sample for sample in val.samples if sample.size == SIZE]
    order = np.random.default_rng(0).permutation(len(usual))
    return [usual[order[number % len(usual)]] for number in range(count)]


def _join(parts: list[Sample], count: int, path: Path) -> Sample:
    """One image of count x count, and all their objects."""
    rows = [np.concatenate([load(one.path) for one in parts[row::count]], 1) for row in range(count)]
    Image.fromarray(np.concatenate(rows)).save(path, compress_level=1)
    shifts = [np.array([number // count * SIZE[1], number % count * SIZE[0]] * 2) for number in range(len(parts))]
    return Sample(
        path,
        np.concatenate([one.boxes + shift for one, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([one.labels for one in parts]),
        np.concatenate([one.difficult for one in parts]),
    )


def _compare(detector: Detector, name: str, dataset: Dataset, tiles: list[int], overlap: float) -> None:
    """A line without tiles, then one for each side of a tile."""
    usual = 0.0
    for tile in (None, *tiles):
        start = time.process_time()
        points = _evaluate(detector, dataset, tile, overlap)
        taken = time.process_time() - start
        usual = usual or taken
        print(f"| {name} | {f'{tile} px' if tile else 'none'} | {points:.1f} | {taken / usual:.1f} |", flush=True)


def _evaluate(detector: Detector, dataset: Dataset, tile: int | None, overlap: float) -> float:
    with bar(f"tile {tile}", len(dataset)) as (progress, task):
        result = evaluate(
            detector, dataset, tile=tile, overlap=overlap, progress=lambda done: progress.update(task, completed=done)
        )
    return 100 * result.voc.mean_ap


if __name__ == "__main__":
    typer.run(main)
