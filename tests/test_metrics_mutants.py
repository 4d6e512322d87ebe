"""Deliberate mistakes, one for each rule: the tests of the evaluators must catch every one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest


class Mutant(NamedTuple):
    mistake: str
    file: str
    right: str
    wrong: str


MUTANTS = [
    Mutant("VOC: the last of equal IoUs", "voc.py", "first = best[np.flatnonzero(np.diff(det[best], prepend=-1))]",
           "first = best[np.flatnonzero(np.diff(det[best], append=-1))]"),
    Mutant("VOC: a detection goes to every ground truth it reaches", "voc.py", "if len(starts) < len(det):",
           "if False:"),
    Mutant("VOC: difficult ones count as found", "voc.py", "return (first[truth] == place) & ~ignored, ignored",
           "return first[truth] == place, ignored"),
    Mutant("VOC: only the first of a difficult one is ignored", "voc.py",
           "return (first[truth] == place) & ~ignored, ignored",
           "return (first[truth] == place) & ~ignored, ignored & (first[truth] == place)"),
    Mutant("VOC: a second detection is true too", "voc.py", "return (first[truth] == place) & ~ignored, ignored",
           "return ~ignored, ignored"),
    Mutant("VOC: difficult ones are positives", "voc.py", "problem.gt_labels[~problem.gt_flag]", "problem.gt_labels"),
    Mutant("VOC: ignored detections count as false", "voc.py",
           "- (np.searchsorted(ignored, hits) - np.searchsorted(ignored, begin))", ""),
    Mutant("VOC: ignored detections of other classes count", "voc.py",
           "(np.searchsorted(ignored, hits) - np.searchsorted(ignored, begin))", "np.searchsorted(ignored, hits)"),
    Mutant("VOC: no envelope", "voc.py", "np.maximum.accumulate(precision[part][::-1])[::-1]", "precision[part]"),
    Mutant("VOC: the envelope runs forwards", "voc.py", "np.maximum.accumulate(precision[part][::-1])[::-1]",
           "np.maximum.accumulate(precision[part])"),
    Mutant("VOC: the last step of the curve is dropped from the sum", "voc.py",
           "steps.sum() if recall[part][-1] == 1 else np.append(steps, 0).sum()", "steps.sum()"),
    Mutant("VOC: another sum", "voc.py", "np.append(steps, 0).sum()", "np.cumsum(steps)[-1]"),
    Mutant("VOC: 11 points on the exact grid", "voc.py", 'if eleven_points == "arange":', "if False:"),
    Mutant("VOC: 11 points on tenths", "voc.py", "np.arange(0, 1.1, 0.1))", "np.arange(11) / 10)"),
    Mutant("VOC: recall beyond a point, not at it", "voc.py",
           "np.searchsorted(10 * true[part], np.arange(11) * positive[c])",
           'np.searchsorted(10 * true[part], np.arange(11) * positive[c], side="right")'),
    Mutant("VOC: ten points", "voc.py", "/ 11)[-1]", "/ 10)[-1]"),
    Mutant("VOC: classes without ground truth count as 0", "voc.py",
           "ap, ap_11pt = np.where(positive > 0, 0.0, np.nan)", "ap, ap_11pt = np.zeros(len(positive))"),
    Mutant("VOC: COCO's rounded edges", "voc.py", "overlapping_pairs(problem, cells, floor)",
           "overlapping_pairs(problem, cells, floor, by_sides=True)"),
    Mutant("VOC: at 0.5 whatever the threshold", "voc.py", "_best(problem, cells, threshold)",
           "_best(problem, cells, 0.5)"),
    Mutant("ties of score go to the last row", "pairs.py", "order = np.arange(len(keys[0][0]))",
           "order = np.arange(len(keys[0][0]))[::-1]"),
    Mutant("scores in single precision", "pairs.py", "if scores.dtype == np.float64 and", "if False and"),
    Mutant("-0 is less than 0", "pairs.py", "(single + np.float32(0))", "single"),
    Mutant("-0 is less than 0, in double precision", "pairs.py", "(scores + 0.0)", "scores"),
    Mutant("negative scores rise", "pairs.py", "(~(bits >> (width - 1)) & np.iinfo(bits.dtype).max)",
           "np.iinfo(bits.dtype).max"),
    Mutant("IoU beyond the threshold, not at it", "pairs.py", "(shared >= floor)", "(shared > floor)"),
    Mutant("boxes apart both ways overlap", "pairs.py", "& (width > 0) & (height > 0)", ""),
    Mutant("boxes in single precision", "pairs.py", "    columns[:4] = boxes.T\n",
           "    columns[:4] = np.float32(boxes.T)\n"),
    Mutant("inclusive pixels", "pairs.py", "sides = columns[2:4] - columns[:2]",
           "sides = columns[2:4] - columns[:2] + 1"),
    Mutant("the union counts the shared part twice", "pairs.py", "        union -= shared\n", ""),
    Mutant("COCO: the corners as given", "pairs.py", "    if by_sides:\n", "    if False:\n"),
    Mutant("COCO: a crowd is measured by the union", "pairs.py", "np.copyto(union, area, where=crowd[truth])", "pass"),
    Mutant("COCO: a crowd is measured by its own area", "pairs.py", "np.copyto(union, area, where",
           "np.copyto(union, truths[4][truth], where"),
    Mutant("all classes in one", "pairs.py", "np.multiply(problem.gt_labels, problem.num_images, dtype=np.int64)",
           "np.zeros(len(problem.gt_labels), np.int64)"),
    Mutant("COCO: a taken ground truth ends the search", "coco_matching.py", "more = ~last[offer]",
           "more = np.zeros(len(offer), bool)"),
    Mutant("COCO: the first of equal IoUs", "coco_matching.py", "back = mixed[::-1]", "back = mixed"),
    Mutant("COCO: the worst IoU first", "coco_matching.py",
           "falling = np.float64(2).view(np.int64) - iou[back].view(np.int64)",
           "falling = iou[back].view(np.int64)"),
    Mutant("COCO: ignored ones are as good as real ones", "coco_matching.py", "(ignored, 1), ", ""),
    Mutant("COCO: all area ranges match alike", "coco_matching.py", "changed[0] = True",
           "changed[:] = [[True], *[[False]] * 3]"),
    Mutant("COCO: a crowd takes one", "coco_matching.py", "free = crowd[truth]", "free = crowd[truth] & False"),
    Mutant("COCO: a crowd takes one, where nobody has a choice", "coco_matching.py", "many = crowd[truth]",
           "many = crowd[truth] & False"),
    Mutant("COCO: the last in score order keeps it", "coco_matching.py",
           "np.minimum.at(first.reshape(-1), slot, place)",
           "np.minimum.at(first.reshape(-1), slot, -place)"),
    Mutant("COCO: who loses a ground truth is done", "coco_matching.py",
           "rival[~wins], before[ousted] & ((1 << shift) - 1)])",
           "rival[~wins]])"),
    Mutant("COCO: whoever asks is accepted", "coco_matching.py", "level > hard[truth])", "level > 0)"),
    Mutant("COCO: a choice only among the best", "coco_matching.py", "np.minimum(level[choice], second)",
           "second // 2"),
    Mutant("COCO: IoU beyond a threshold", "coco_matching.py", "level += iou >= threshold",
           "level += (iou > threshold) | (threshold == 0.5)"),
    Mutant("COCO: thresholds from arange", "coco_matching.py", "np.linspace(0.5, 0.95, 10)", "np.arange(0.5, 1, 0.05)"),
    Mutant("COCO: areas without their upper bound", "coco.py", "& (low <= area) & (area <= high) for low",
           "& (low <= area) & (area < high) for low"),
    Mutant("COCO: areas without their lower bound", "coco.py", "& (low <= area) & (area <= high) for low",
           "& (low < area) & (area <= high) for low"),
    Mutant("COCO: detections without their upper bound", "coco.py", "((low <= area) & (area <= high))[order]",
           "((low <= area) & (area < high))[order]"),
    Mutant("COCO: detections without their lower bound", "coco.py", "((low <= area) & (area <= high))[order]",
           "((low < area) & (area <= high))[order]"),
    Mutant("COCO: detections of any size count as false", "coco.py", "((low <= area) & (area <= high))[order]",
           "((low <= area) | True)[order]"),
    Mutant("COCO: crowds are positives", "coco.py", "~problem.gt_flag & (low", "(low"),
    Mutant("COCO: the box's area, whatever is given", "coco.py", "if problem.gt_area is None else problem.gt_area", ""),
    Mutant("COCO: areas in single precision", "coco.py",
           "area: Doubles = np.subtract(boxes[:, 2], boxes[:, 0], dtype=np.float64)",
           "area = np.float32(boxes[:, 2] - boxes[:, 0])"),
    Mutant("COCO: ties of score go by row alone", "coco.py", "if not (images[1:] >= images[:-1]).all():", "if False:"),
    Mutant("COCO: no limit on detections", "coco.py", "rank_in_run(cell[best_first]) >= limit",
           "np.zeros(len(rows), bool)"),
    Mutant("COCO: one detection less", "coco.py", "rank_in_run(cell[best_first]) >= limit",
           "rank_in_run(cell[best_first]) >= limit - 1"),
    Mutant("COCO: the limit is for a image", "coco.py", "cell = (np.cumsum(full) - 1)[cells.det[rows]]",
           "cell = np.zeros(len(rows), np.int64)"),
    Mutant("COCO: limits below the largest are not kept", "coco.py", "own[rank[use[true]] < limit]", "own"),
    Mutant("COCO: one more detection below the largest limit", "coco.py", "own[rank[use[true]] < limit]",
           "own[rank[use[true]] <= limit]"),
    Mutant("COCO: no spacing in the precision", "coco.py", "(total + np.spacing(1))", "total"),
    Mutant("COCO: ignored matches count as false", "coco.py", "change = correct.astype(np.int64) - inner",
           "change = np.zeros(len(correct), np.int64)"),
    Mutant("COCO: precision of the recall before", "coco.py", "need += need / count < RECALLS", "need += 0"),
    Mutant("COCO: precision of the recall after", "coco.py", "need -= (need - 1) / count >= RECALLS", "need -= 0"),
    Mutant("COCO: recalls are hundredths", "coco.py", "np.linspace(0.0, 1.0, 101)", "np.arange(101) / 100"),
    Mutant("COCO: no envelope", "coco.py", "np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]", "curve"),
    Mutant("COCO: classes without ground truth have AP 0", "coco.py", "ap[positive[0] == 0] = np.nan", "pass"),
    Mutant("COCO: classes without ground truth count in the mean", "coco.py",
           "(values if there.all() else values[..., there])", "values"),
    Mutant("COCO: AP75 at 0.70", "coco.py", "slice(5, 6)", "slice(4, 5)"),
    Mutant("a NaN passes", "inputs.py",
           "return array.size == 0 or bool(array.min().item() >= low and array.max().item() <= high)",
           "return array.size == 0 or not (array.min().item() < low or array.max().item() > high)"),
    Mutant("half a class passes", "inputs.py", "_refuse(name, array, whole != array, want)", "pass"),
    Mutant("inverted boxes pass", "inputs.py", "boxes[:, side + 2] < boxes[:, side]", "boxes[:, 2] < boxes[:, 0]"),
    Mutant("half precision is not widened", "inputs.py",
           "wide = np.float32 if array.dtype == np.float32 else np.float64", "wide = np.float32"),
]  # fmt: skip

ROOT = Path(__file__).parents[1]
TESTS = ("test_metrics_inputs.py", "test_metrics_voc.py", "test_metrics_coco.py")
SEARCH = "import test_metrics_voc as v, test_metrics_coco as c; v.search(range(2500)); c.search(range(2500))"


def caught(folder: Path) -> str:
    """How the tests of the package in a folder fail: by a hand-made case, by the search, or not at all."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tests'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pytest_call = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", "not search", *TESTS]
    for how, call in (("by hand", pytest_call), ("search", ["-c", SEARCH])):
        done = subprocess.run(
            [sys.executable, *call],
            cwd=folder / "tests",
            env=environment,
            capture_output=True,
            check=False,
            timeout=600,
        )
        if done.returncode:
            return how
    return ""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and the tests of its evaluators, to be mutated."""
    shutil.copytree(ROOT / "centerdet", tmp_path / "centerdet", ignore=shutil.ignore_patterns("__pycache__", "*.html"))
    (tmp_path / "tests").mkdir()
    for file in ("conftest.py", "reference_metrics.py", *TESTS):
        shutil.copy(ROOT / "tests" / file, tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_list_fits_the_code() -> None:
    for mutant in MUTANTS:
        assert (ROOT / "centerdet" / "metrics" / mutant.file).read_text().count(mutant.right) == 1, mutant.mistake
    assert len({mutant.mistake for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.soak
def test_the_right_code_passes(copy: Path) -> None:
    assert caught(copy) == ""


@pytest.mark.soak
@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.mistake for mutant in MUTANTS])
def test_every_mistake_is_caught(mutant: Mutant, copy: Path) -> None:
    path = copy / "centerdet" / "metrics" / mutant.file
    path.write_text(path.read_text().replace(mutant.right, mutant.wrong))
    assert caught(copy)
