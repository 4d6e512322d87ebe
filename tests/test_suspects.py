"""Likely label errors: each kind by hand, in any order of the rows, written for labeling tools, planted and found."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_sets import NAMES, make_set
from typer.testing import CliRunner

from centerdet.cli import app
from centerdet.data.coco import read_coco, write_coco
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import read_voc, write_voc
from centerdet.errors import DataError, WriteError
from centerdet.evaluation.evaluation import Evaluation, evaluate_detections
from centerdet.evaluation.files import Results, write_results
from centerdet.evaluation.suspects import correct, write_suspects
from centerdet.metrics.arrays import Arrays
from centerdet.metrics.label_errors import LabelErrorKind, LabelErrors, label_errors
from centerdet.metrics.voc import match_detections

BOX, FAR = [0.0, 0, 50, 50], [100.0, 100, 150, 150]
SHIFTED = [20.0, 0, 70, 50]  # an IoU of 3/7 with BOX
Rows = list[tuple[list[float], float, int]]


def find(detections: Rows, truths: list[tuple[list[float], int]], **flags: Any) -> LabelErrors:
    """Label errors of one image with three classes."""
    boxes, scores, labels = zip(*detections, strict=True) if detections else ((), (), ())
    gt_boxes, gt_labels = zip(*truths, strict=True) if truths else ((), ())
    arrays = Arrays.check(
        np.array(boxes).reshape(-1, 4), np.array(scores, float), np.array(labels, int), np.zeros(len(boxes), int),
        np.array(gt_boxes).reshape(-1, 4), np.array(gt_labels, int), np.zeros(len(gt_boxes), int),
        num_classes=3, **flags,
    )  # fmt: skip
    return label_errors(arrays, match_detections(arrays))


def listed(result: LabelErrors) -> list[tuple[str, int, int]]:
    columns = (result.kind.tolist(), result.detection.tolist(), result.gt.tolist())
    return [(LabelErrorKind(kind).name.lower(), det, gt) for kind, det, gt in zip(*columns, strict=True)]


def test_right_labels_are_no_suspects() -> None:
    assert listed(find([(BOX, 0.9, 0), (FAR, 0.8, 1)], [(BOX, 0), (FAR, 1)])) == []
    assert listed(find([], [])) == []
    assert listed(find([(BOX, 0.29, 0)], [])) == []  # not confident


def test_a_missing_object() -> None:
    result = find([(BOX, 0.9, 0), (FAR, 0.8, 1), (FAR, 0.7, 2)], [(BOX, 0)])
    assert listed(result) == [("missing", 1, -1)]  # the same place is proposed once, as the best class
    assert result.score.tolist() == [0.8]


def test_a_missing_object_beside_one_of_its_class_that_has_a_closer_detection() -> None:
    assert listed(find([(BOX, 0.9, 0), (SHIFTED, 0.8, 0)], [(BOX, 0)])) == [("missing", 1, 0)]


def test_a_shifted_box() -> None:
    result = find([(SHIFTED, 0.8, 0)], [(BOX, 0)])
    assert listed(result) == [("shifted", 0, 0)]
    assert (result.score[0], result.iou[0]) == (0.8, 3 / 7)


def test_a_renamed_box_by_the_chance_of_either_class_given_an_object() -> None:
    result = find([(BOX, 0.6, 1)], [(BOX, 0)])
    assert (listed(result), result.score.tolist()) == ([("renamed", 0, 0)], [1.0])
    result = find([(BOX, 0.6, 1), (SHIFTED, 0.1, 0), (BOX, 0.5, 2)], [(BOX, 0)])
    assert listed(result) == [("renamed", 0, 0)]  # the ground truth is in one suspect
    assert result.score[0] == pytest.approx((0.6 - 0.1) / (1 - 0.4 * 0.9 * 0.5))
    assert listed(find([(BOX, 0.6, 1), (BOX, 0.7, 0)], [(BOX, 0)])) == []  # a confusion of the detector


def test_a_duplicate_box_is_the_one_less_seen() -> None:
    close = [0.0, 0, 50, 45]
    result = find([(BOX, 0.9, 0)], [(close, 0), (BOX, 0)])
    assert (listed(result), result.score.tolist()) == ([("duplicate", -1, 0)], [0.9])
    assert listed(find([(BOX, 0.9, 0), (close, 0.85, 0)], [(close, 0), (BOX, 0)])) == []  # both are seen


def test_a_spurious_box_where_all_others_are_seen() -> None:
    columns = [[200.0 * k, 0, 200.0 * k + 50, 50] for k in range(60)]
    truths = [(box, 0) for box in columns]
    result = find([(box, 0.9, 0) for box in columns[1:]], truths)
    assert listed(result) == [("spurious", -1, 0)]
    assert 0.5 < result.score[0] < 1
    assert listed(find([(box, 0.9, 0) for box in columns[30:]], truths)) == []  # this detector overlooks many


def test_scores_beyond_1_and_narrow_labels_of_many_classes() -> None:
    assert find([(BOX, 7.0, 0)], []).score.tolist() == [1]
    columns = np.array([[200.0 * k, 0, 200.0 * k + 50, 50] for k in range(60)])
    results = []
    for kind in (np.uint8, np.int64):
        labels = np.full(60, 100, kind)
        images = np.zeros(60, kind)
        arrays = Arrays.check(
            columns[1:], np.full(59, 0.9), labels[1:], images[1:], columns, labels, images, num_classes=101
        )
        results.append(label_errors(arrays, match_detections(arrays)).to_dict())
    assert results[0] == results[1] and results[0]["kind"] == [LabelErrorKind.SPURIOUS]


def test_difficult_objects_and_crowds_are_no_suspects_and_explain_detections() -> None:
    for flag in ("gt_difficult", "gt_crowd"):
        assert listed(find([(BOX, 0.9, 0)], [(BOX, 0)], **{flag: [1]})) == []
        assert listed(find([(BOX, 0.9, 1)], [(BOX, 0)], **{flag: [1]})) == []
    inside = [10.0, 10, 14, 14]
    assert listed(find([(inside, 0.9, 0)], [(BOX, 0)], gt_crowd=[1])) == []
    assert listed(find([(inside, 0.9, 0)], [(BOX, 0)])) == [("missing", 0, 0)]


def test_the_order_of_rows_and_narrow_or_read_only_arrays_change_nothing() -> None:
    draw = np.random.default_rng(0)
    low = draw.uniform(0, 150, (90, 2))
    boxes = np.hstack([low, low + draw.uniform(5, 60, (90, 2))])
    scores, labels, images = draw.permutation(90) / 90, draw.integers(0, 3, 90), draw.integers(0, 5, 90)
    gt, gt_labels = boxes[:40] + draw.normal(0, 3, (40, 1)), (labels[:40] + (np.arange(40) % 3 == 0)) % 3

    def run(det: Any, truth: Any, kind: type) -> list[tuple[float, ...]]:
        columns = [boxes[det], scores[det], labels[det].astype(kind), images[det].astype(kind)]
        columns += [gt[truth], gt_labels[truth].astype(kind), images[:40][truth].astype(kind)]
        for column in columns:
            column.setflags(write=False)
        arrays = Arrays.check(*columns, num_classes=3)
        result = label_errors(arrays, match_detections(arrays))
        rows = zip(
            result.kind.tolist(), result.score.tolist(), result.detection.tolist(), result.gt.tolist(), strict=True
        )
        return [(k, s, det[d] if d >= 0 else -1, truth[g] if g >= 0 else -1) for k, s, d, g in rows]

    plain = run(np.arange(90), np.arange(40), np.int64)
    assert {kind for kind, *_ in plain} >= {0, 1, 2}
    assert [row[1] for row in plain] == sorted((row[1] for row in plain), reverse=True)
    assert run(np.arange(90), np.arange(40), np.uint8) == plain
    assert run(draw.permutation(90), draw.permutation(40), np.int64) == plain


def test_a_result_is_json_and_bad_options_are_named() -> None:
    json.dumps(find([], []).to_dict(), allow_nan=False)
    json.dumps(find([(BOX, 0.9, 0)], []).to_dict(), allow_nan=False)
    arrays = Arrays.check([], [], [], [], [], [], [], num_classes=1)
    match = match_detections(arrays)
    wrong: list[dict[str, float]] = [{"background_iou": value} for value in (0, 0.6, float("nan"))]
    for option in wrong + [{"score_threshold": value} for value in (0, 2, float("nan"))]:
        with pytest.raises(DataError, match=next(iter(option))):
            label_errors(arrays, match, **option)


# Files


def one_of_each(folder: Path) -> tuple[Dataset, Evaluation]:
    """Three images: an object missing, a box shifted, and one renamed; and a detector that knows better."""
    dataset, _ = make_set(folder, images=3)
    boxes = np.array([BOX, FAR])
    truths: Any = [(boxes[:1], [0]), (np.array([SHIFTED, FAR]), [0, 2]), (boxes, [0, 2])]
    samples = [
        Sample(sample.path, box, np.array(labels), size=(200, 200))
        for sample, (box, labels) in zip(dataset.samples, truths, strict=True)
    ]
    rows = [(BOX, 0.9, 0, n) for n in range(3)] + [(FAR, 0.8, 1 if n == 2 else 2, n) for n in range(3)]
    det_boxes, scores, labels, images = map(np.array, zip(*rows, strict=True))
    clean = Dataset(samples, NAMES)
    return clean, evaluate_detections(Results(det_boxes.astype(float), scores, labels, images), clean)


def test_corrected_annotations_have_no_suspects(tmp_path: Path) -> None:
    dataset, result = one_of_each(tmp_path)
    suspects = result.suspects()
    assert {one.kind for one in suspects} == {"missing", "shifted", "renamed"}
    samples = [correct(s, [x for x in suspects if x.image == s.path], NAMES)[0] for s in dataset.samples]
    assert evaluate_detections(result.results, Dataset(samples, NAMES)).suspects() == []
    assert evaluate_detections(result.results, Dataset(samples, NAMES)).voc.mean_ap == 1


def test_the_folder_holds_a_list_and_proposals_that_the_readers_take(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    dataset, result = one_of_each(tmp_path / "images")
    write_suspects(tmp_path / "out", result.suspects(), dataset)
    plain = json.loads((tmp_path / "out" / "suspects.json").read_text())
    assert [set(one) for one in plain] == [{"image", "kind", "score", "reason", "proposal", "existing"}] * 3
    assert {one["kind"]: (bool(one["proposal"]), bool(one["existing"])) for one in plain} == {
        "missing": (True, False), "shifted": (True, True), "renamed": (True, True),
    }  # fmt: skip
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [(one["suspect"], one["bbox"]) for one in coco["annotations"] if "suspect" in one] == [
        ("missing", [100, 100, 50, 50]), ("shifted", [0, 0, 50, 50]), ("renamed", [100, 100, 50, 50]),
    ]  # fmt: skip
    # A labeling tool puts them beside the images.
    write_coco(dataset, tmp_path / "coco", "val")
    images = {image["file_name"]: image["id"] for image in coco["images"]}
    assert images == {sample.path.name: int(sample.path.stem) for sample in dataset.samples}
    (tmp_path / "coco" / "annotations" / "instances_val.json").write_text(json.dumps(coco))
    write_voc(dataset, tmp_path / "voc", "val")
    for file in (tmp_path / "out" / "voc").iterdir():
        (tmp_path / "voc" / "Annotations" / file.name).write_bytes(file.read_bytes())
    for read in (read_coco(tmp_path / "coco", ["val"]), read_voc(tmp_path / "voc", ["val"])):
        again = evaluate_detections(result.results, read)
        assert again.suspects() == [] and again.voc.mean_ap == 1
    lines = {file.stem: file.read_text().split() for file in (tmp_path / "out" / "yolo").glob("0*.txt")}
    first = [float(word) for word in lines["000005"]]
    assert first == [0, 0.125, 0.125, 0.25, 0.25, 2, 0.625, 0.625, 0.25, 0.25]
    assert (tmp_path / "out" / "yolo" / "classes.txt").read_text().split() == list(NAMES)


def test_equal_file_names_keep_their_folders(tmp_path: Path) -> None:
    samples = [Sample(tmp_path / folder / "1.png", size=(200, 200)) for folder in "ab"]
    boxes, labels = np.array([BOX, FAR]), np.zeros(2, int)
    result = evaluate_detections(Results(boxes, np.full(2, 0.9), labels, np.arange(2)), Dataset(samples, NAMES))
    write_suspects(tmp_path / "out", result.suspects(), Dataset(samples, NAMES))
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a/1.png", "b/1.png"]
    assert (tmp_path / "out" / "voc" / "a" / "1.xml").exists() and (tmp_path / "out" / "yolo" / "b" / "1.txt").exists()


def test_the_command_writes_a_list_or_a_folder_and_refuses_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    dataset, result = one_of_each(tmp_path / "images")
    write_voc(dataset, tmp_path / "voc", "val")
    write_results(tmp_path / "found", result.results, dataset, split="val")
    words = ["evaluate", str(tmp_path / "found"), "--data", str(tmp_path / "voc"), "--split", "val", "--suspects"]
    for place in ("list.json", "folder"):
        done = CliRunner().invoke(app, [*words, str(tmp_path / place)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "list.json").read_text()) == json.loads(
        (tmp_path / "folder/suspects.json").read_text()
    )
    with pytest.raises(WriteError, match="folder: expected a file called"):
        CliRunner().invoke(app, [*words, str(tmp_path / "folder")], catch_exceptions=False)


def test_planted_errors_are_found_by_a_perfect_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import plant_label_errors

    dataset, _ = make_set(tmp_path, images=2)
    grid = [np.array([60.0 * x, 60 * y, 60 * x + 40, 60 * y + 40]) for x in range(3) for y in range(3)]
    samples = [Sample(s.path, np.array(grid), np.arange(9) % 3, size=(200, 200)) for s in dataset.samples]
    monkeypatch.setattr(plant_label_errors, "SHARES", {"missing": 0.17, "shifted": 0.17, "renamed": 0.17})
    write_voc(Dataset(samples, NAMES), tmp_path / "voc", "val")
    clean = read_voc(tmp_path / "voc", ["val"])
    boxes, labels = np.concatenate([s.boxes for s in samples]), np.concatenate([s.labels for s in samples])
    perfect = Results(boxes, np.full(18, 0.9), labels, np.repeat([0, 1], 9))
    write_results(tmp_path / "found", perfect, clean, split="val")
    plant_label_errors.main(tmp_path / "voc", "val", str(tmp_path / "found"), 1, tmp_path / "planted")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [[kind, n, "1.000", "1.000", n, "1.000"] for kind, n in zip(
        ("missing", "shifted", "renamed", "all"), "3339", strict=True
    )]  # fmt: skip
    planted = read_voc(tmp_path / "planted", ["planted"])
    assert sum(len(sample.boxes) for sample in planted.samples) == 15
    assert planted.samples[0].path.samefile(clean.samples[0].path), "linked, not copied"
    sys.modules.pop("plant_label_errors")
