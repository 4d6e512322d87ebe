"""`centerdet evaluate`: what it prints and writes, and how it fails."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_sets import NAMES, make_set
from typer.testing import CliRunner

from centerdet.cli import app, main
from centerdet.cli.show import console
from centerdet.data.coco import read_coco, write_coco
from centerdet.data.voc import read_voc, write_voc
from centerdet.errors import AnnotationError
from centerdet.evaluation.evaluation import evaluate_detections
from centerdet.evaluation.files import Results, read_results, write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in VOC and COCO format, and two detectors' results as VOC files and COCO JSON."""
    root = tmp_path_factory.mktemp("sets")
    (root / "images").mkdir()
    dataset, detections = make_set(root / "images")
    write_voc(dataset, root / "voc", "val")
    write_coco(dataset, root / "coco", "val")
    ids = [root / "coco" / "annotations" / "instances_val.json"]
    worse = Results(detections.boxes + 9, detections.scores, detections.labels, detections.images)
    for name, results in (("first", detections), ("second", worse)):
        write_results(root / name, results, dataset, split="val")
        write_results(root / f"{name}.json", results, read_coco(root / "coco", ["val"]), split="val", annotations=ids)
    return root


def run(*arguments: Any) -> tuple[str, str]:
    """Standard output and error of a command that succeeds."""
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_voc_files_print_the_plain_table(folder: Path) -> None:
    dataset = read_voc(folder / "voc", ["val"])
    result = evaluate_detections(read_results(folder / "first", dataset), dataset)
    shown, complaints = run(folder / "first", "--data", folder / "voc", "--split", "val")
    assert shown.strip() == str(result)
    assert complaints == ""


def test_a_coco_results_file_uses_the_ids_of_the_dataset(folder: Path) -> None:
    tables = [
        run(folder / "first.json", "--data", folder / "coco", "--split", "val"),
        run(folder / "first.json", "--data", folder / "coco" / "annotations" / "instances_val.json"),
        run(
            folder / "first.json", "--data", folder / "voc", "--split", "val",
            "--annotations", folder / "coco" / "annotations" / "instances_val.json",
        ),
        run(folder / "first", "--data", folder / "voc", "--split", "val"),
    ]  # fmt: skip
    assert tables[0] == tables[1] and tables[2] == tables[3]
    assert "AP_small" in tables[0][0]  # COCO's numbers follow where both files are COCO's
    assert {shown.partition("\nCOCO\n")[0].rstrip() for shown, _ in tables} == {tables[2][0].rstrip()}


def test_what_is_repaired_in_results_is_one_line_of_warning(folder: Path, tmp_path: Path) -> None:
    records = json.loads((folder / "first.json").read_bytes())
    file = tmp_path / "from_zero.json"
    file.write_text(json.dumps([record | {"category_id": record["category_id"] - 1} for record in records]))
    shown, complaints = run(file, "--data", folder / "coco", "--split", "val")
    assert complaints.startswith(f"warning: {file}: category ids count from 0") and complaints.count("\n") == 1
    first, _ = run(folder / "first", "--data", folder / "coco", "--split", "val")
    assert shown.startswith(first.rstrip())


def test_details_comparison_and_rules_are_shown(folder: Path) -> None:
    shown, _ = run(
        folder / "first", "--data", folder / "voc", "--split", "val",
        "--details", "--compare", "--against", folder / "second",
    )  # fmt: skip
    for words in (
        "Confidence intervals", "by size", "best F1", "false positives per image", "TIDE", "duplicate",
        "Likely label errors",
        "next best object", "IoU 0.50:0.95 (COCO AP)", "second against", "mean voc07-11pt", "more than chance",
    ):  # fmt: skip
        assert words in shown
    assert "nan" not in shown


def test_json_alone_on_standard_output(folder: Path, tmp_path: Path) -> None:
    common = (folder / "first", "--data", folder / "voc", "--split", "val", "--details", "--compare")
    shown, _ = run(*common, "--json", "-", "--against", folder / "second")
    plain = json.loads(shown)
    assert 0 < plain["mean"]["voc-area"] < 1
    assert [one["name"] for one in plain["classes"]] == list(NAMES)
    assert {"by_size", "operating_points", "error_kinds", "bootstrap", "suspects", "coco"} < plain.keys()
    assert len(plain["from_voc_to_coco"]) == 7
    assert plain["against"]["mean voc-area"]["difference"] < 0
    shown, _ = run(*common, "--json", tmp_path / "result.json", "--csv", tmp_path / "result.csv")
    assert shown.startswith("class")
    written = json.loads((tmp_path / "result.json").read_text())
    assert written == {key: value for key, value in plain.items() if key != "against"}
    with (tmp_path / "result.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == [*NAMES, "mean"]


def test_saved_detections_evaluate_to_the_same(folder: Path, tmp_path: Path) -> None:
    for data, saved in (("voc", "again"), ("voc", "again.json"), ("coco", "other.json"), ("coco", "other")):
        common = ("--data", folder / data, "--split", "val")
        first = run(folder / "first", *common, "--save-detections", tmp_path / saved)
        shown, complaints = run(tmp_path / saved, *common)
        assert (shown.partition("\nCOCO\n")[0].rstrip(), complaints) == (first[0].rstrip(), first[1])


def test_a_threshold_before_ap_is_warned_of(folder: Path, tmp_path: Path) -> None:
    common = ("--data", folder / "voc", "--split", "val")
    shown, complaints = run(
        folder / "first", *common, "--score-threshold", 0.5, "--save-detections", tmp_path / "cut", "--json", "-"
    )
    assert "a score threshold of 0.5 was applied before AP" in complaints
    assert json.loads(shown)["score_threshold"] == 0.5
    assert "the lowest of" in run(tmp_path / "cut", *common)[1]


def test_on_a_terminal_it_is_a_drawn_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    shown, _ = run(folder / "first", "--data", folder / "voc", "--split", "val", "--details")
    assert "│" in shown and "voc07-11pt" in shown


def test_failures_say_what_and_where(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.json").write_text('[{"image_id": 5}]')
    cases = {
        (str(tmp_path / "broken.json"), "--split", "val"): (1, "broken.json: [0].category_id: the key is missing"),
        (str(folder / "first"), "--split", "test"): (1, "test"),
        ("vox", "--split", "val"): (1, "vox: no such weights file"),
        (str(folder / "first"), "--split", "val", "--csv", "none/a.csv"): (2, "no folder none"),
        (str(tmp_path / "no.safetensors"), "--split", "val"): (1, "no.safetensors: no such weights file"),
        (str(folder / "first"), "--split", "val", "--score-threshold", "2"): (2, "score-threshold"),
    }
    for (weights, *options), (code, words) in cases.items():
        monkeypatch.setattr(sys, "argv", ["centerdet", "evaluate", weights, "--data", str(folder / "voc"), *options])
        with pytest.raises(SystemExit) as ending:
            main()
        assert ending.value.code == code
        assert words in capsys.readouterr().err


def test_a_detector_is_run_over_the_images(tmp_path: Path) -> None:
    from tiny import tiny_detector

    from centerdet.data.shapes import SHAPE_NAMES, write_shapes

    write_shapes(tmp_path / "shapes", train=1, val=3, size=64)
    tiny_detector(SHAPE_NAMES).save(tmp_path / "some.safetensors")
    common = ("--data", tmp_path / "shapes", "--split", "val", "--device", "cpu", "--quiet")
    shown, _ = run(tmp_path / "some.safetensors", *common, "--save-detections", tmp_path / "detections")
    assert shown.splitlines()[-1].startswith("3 images, at most 100 detections each, no score threshold")
    assert run(tmp_path / "detections", *common)[0] == shown
    assert "with tiles of 40 px" in run(tmp_path / "some.safetensors", *common, "--tile", 40)[0]
    with pytest.raises(AnnotationError, match=r"unknown class .* \(voc was not trained on it\)"):
        run("voc", *common)
