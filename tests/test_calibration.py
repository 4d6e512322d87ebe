"""Calibration: errors equal to netcal's; maps that keep every order; the same numbers from every kind of file."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporting import exported, noise
from metric_problems import crowd_of_images, matched
from PIL import Image
from tiny import NAMES, tiny_calibration, tiny_detector
from typer.testing import CliRunner

from centerdet import Detector, evaluate
from centerdet.cli import app
from centerdet.data.formats import write_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.errors import ConfigError, DataError, WeightsError
from centerdet.evaluation.evaluation import evaluate_detections
from centerdet.metrics import VocMatch
from centerdet.metrics.arrays import Arrays
from centerdet.metrics.calibration import calibration_error, precision_curve, reliability_curve
from centerdet.metrics.score_map import Calibration, Fit, fit_calibration
from centerdet.metrics.voc import evaluate as evaluate_voc
from centerdet.metrics.voc import match_detections
from centerdet.runtimes.onnx_header import read_fields, seal
from centerdet.runtimes.weights import check_header, read_tensors

Matched = tuple[Arrays, VocMatch]

SCORES = [0.02, 0.05, 0.1, 0.15, 0.3, 0.3, 0.45, 0.5, 0.62, 0.7, 0.81, 0.9, 0.97, 1.0]
RIGHT = [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1]
NETCAL = {  # netcal 1.4.0: ECE(bins, equal_intervals=not equal_count, detection=True).measure(SCORES, RIGHT)
    (5, False): 0.1521428571428571,
    (5, True): 0.17642857142857143,
    (10, False): 0.25357142857142856,
    (10, True): 0.27214285714285713,
}


def judged(scores: Any, right: Any, labels: Any = None, images: Any = None, classes: int = 1) -> Matched:
    """Detections with these scores, each on an object of an IoU of 0.8 if it is right, else on none."""
    scores, right = np.asarray(scores), np.asarray(right, bool)
    left = 20.0 * np.arange(len(scores))
    boxes = np.stack([left, 0 * left, left + 10, 0 * left + 10], 1)
    labels = np.zeros(len(scores), int) if labels is None else np.asarray(labels)
    images = np.arange(len(scores)) if images is None else np.asarray(images)
    truths = boxes[right] - [0, 0, 0, 2]
    arrays = Arrays.check(boxes, scores, labels, images, truths, labels[right], images[right], num_classes=classes)
    match = match_detections(arrays)
    assert np.array_equal(match.true_positive, right)
    return arrays, match


def drawn(precision: Callable[[Any], Any], seed: int = 0, count: int = 4000, classes: int = 2) -> Matched:
    """Detections of random scores in single precision, right with the probability that `precision` states."""
    draw = np.random.default_rng(seed)
    scores = draw.beta(0.5, 1.5, count).astype(np.float32)
    return judged(
        scores, draw.random(count) < precision(scores), draw.integers(classes, size=count),
        draw.integers(count // 20, size=count), classes,
    )  # fmt: skip


def drawn_fit(precision: Callable[[Any], Any], **options: Any) -> Fit:
    return fit_calibration(*drawn(precision, **options), names=NAMES[: options.get("classes", 2)])


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bins", "equal_count"), NETCAL)
def test_d_ece_is_netcals(bins: int, equal_count: bool) -> None:
    result = calibration_error(*judged(SCORES, RIGHT), bins=bins, equal_count=equal_count)
    assert result.d_ece == pytest.approx(NETCAL[bins, equal_count], abs=1e-15)


@pytest.mark.soak
def test_d_ece_is_netcals_on_many_problems() -> None:
    reference = pytest.importorskip("netcal.metrics").ECE
    for seed in range(200):
        arrays, match = matched(crowd_of_images(seed))
        used = ~match.ignored
        for bins in (1, 10, 25):
            for equal_count in (False, True):
                expected = reference(bins, equal_intervals=not equal_count, detection=True).measure(
                    arrays.det_scores[used], match.true_positive[used].astype(int)
                )
                assert calibration_error(arrays, match, bins=bins, equal_count=equal_count).d_ece == pytest.approx(
                    expected, abs=1e-14
                )


def test_reliability_errors_and_la_ece_are_those_of_a_plain_loop() -> None:
    arrays, match = matched(crowd_of_images(3))
    localized, separate = [], []
    for label in range(arrays.num_classes):
        rows = [row for row in range(len(arrays.det_scores)) if arrays.det_labels[row] == label]
        rows = [row for row in rows if not match.ignored[row] and arrays.det_scores[row] >= 0.2]
        curve = reliability_curve(arrays, match, label=label, bins=7, min_score=0.2)
        errors = np.zeros(2)
        for number in range(7):
            low, high = curve.edges[number], curve.edges[number + 1]
            inside = [
                row for row in rows if low <= arrays.det_scores[row] < high or arrays.det_scores[row] == high == 1
            ]
            assert curve.count[number] == len(inside)
            if inside:
                score, right = arrays.det_scores[inside].mean(), match.true_positive[inside]
                assert curve.score[number] == pytest.approx(score) and curve.precision[number] == right.mean()
                iou = match.best_iou[inside][right].mean() if right.any() else 0
                errors += len(inside) * np.abs(score - right.mean() * np.array([1, iou]))
            else:
                assert np.isnan([curve.score[number], curve.precision[number]]).all()
        separate.append(errors[0] / len(rows))
        localized.append(errors[1] / len(rows))
    result = calibration_error(arrays, match, bins=7, min_score=0.2)
    np.testing.assert_allclose(result.per_class, separate, rtol=1e-12)
    assert result.class_mean == pytest.approx(np.mean(separate)) and result.la_ece == pytest.approx(np.mean(localized))
    assert json.loads(json.dumps(result.to_dict()))["bins"] == 7


def test_bins_of_equal_count_hold_as_many_detections() -> None:
    curve = reliability_curve(*drawn(lambda score: score), bins=8, equal_count=True)
    assert curve.count.tolist() == [500] * 8


def test_nothing_to_measure_is_nan() -> None:
    arrays, match = judged([], [])
    assert np.isnan(calibration_error(arrays, match).d_ece) and np.isnan(precision_curve(arrays, match).precision).all()
    assert calibration_error(*judged([0.2], [True]), min_score=0.9).count.tolist() == [0]


def test_scores_beyond_probabilities_are_refused() -> None:
    arrays, match = judged([0.5, 1.5], [True, False])
    for function in (calibration_error, reliability_curve, precision_curve):
        with pytest.raises(DataError, match=r"det_scores: expected numbers from 0 to 1"):
            function(arrays, match)
    with pytest.raises(DataError, match=r"det_scores: expected numbers from 0 to 1"):
        fit_calibration(arrays, match, ["thing"])


def test_the_precision_curve_counts_and_its_band_is_of_resampled_images() -> None:
    arrays, match = matched(crowd_of_images(5))
    curve = precision_curve(arrays, match, points=6, resamples=200, seed=3)
    used = ~match.ignored
    for point, threshold in enumerate(curve.scores):
        right = match.true_positive[used & (arrays.det_scores >= threshold)]
        assert curve.num_detections[point] == len(right)
        np.testing.assert_equal(curve.precision[point], right.mean() if len(right) else np.nan)
    present, samples = np.union1d(arrays.det_images, arrays.gt_images), []
    for number in range(200):
        images = present[np.random.default_rng((3, number)).integers(len(present), size=len(present))]
        rows = np.concatenate([np.flatnonzero(used & (arrays.det_images == image)) for image in images])
        samples.append(match.true_positive[rows[arrays.det_scores[rows] >= curve.scores[2]]].mean())
    assert [curve.low[2], curve.high[2]] == pytest.approx(np.quantile(samples, [0.025, 0.975]).tolist())
    part = precision_curve(arrays, match, label=1, resamples=20)
    assert part.num_detections[0] == (used & (arrays.det_labels == 1)).sum()


# --- maps ---------------------------------------------------------------------------------------------------------


def check_order(calibration: Calibration) -> None:
    """Of scores in single precision, also neighboring ones, every order and every tie stays."""
    draw = np.random.default_rng(0)
    anywhere = np.concatenate([draw.random(2000), draw.random(2000) ** 12, calibration.scores]).astype(np.float32)
    for label in range(len(calibration.names)):
        below, above = (np.nextafter(anywhere, np.float32(end)) for end in (0, 1))
        scores = np.unique(np.concatenate([anywhere, below, above, [np.float32(0), np.float32(1)]]))
        mapped = calibration.apply(scores, np.full(len(scores), label))
        assert (np.diff(mapped) > 0).all() and mapped[0] == 0 and mapped[-1] <= 1
        again = calibration.apply(scores[::-1], np.full(len(scores), label))
        assert np.array_equal(again[::-1], mapped)


@pytest.mark.parametrize("precision", [lambda s: s, lambda s: (s > 0.5) * 0.9, lambda s: 0 * s + 0.5, lambda s: 1 - s])
def test_scores_keep_their_order(precision: Callable[[Any], Any]) -> None:
    check_order(drawn_fit(precision).calibration)


def test_the_ap_of_each_class_is_the_same_to_the_last_bit() -> None:
    for seed in range(9):
        problem = crowd_of_images(seed)
        digits = seed % 3 + 1  # with many ties
        problem["det_scores"] = np.round(problem["det_scores"], digits).clip(0, 1).astype(np.float32)
        arrays, match = matched(problem)
        fit = fit_calibration(arrays, match, NAMES)
        calibrated = replace(arrays, det_scores=fit.calibration.apply(arrays.det_scores, arrays.det_labels))
        before, after = evaluate_voc(arrays), evaluate_voc(calibrated)
        assert np.array_equal(before.ap, after.ap) and np.array_equal(before.ap_11pt, after.ap_11pt)
        assert np.array_equal(match.order, match_detections(calibrated).order)


def test_a_fit_finds_the_precision_and_thresholds_keep_their_word() -> None:
    """A logistic curve is found by Platt's map, a step by an isotonic one; other detections have the stated errors."""
    curves: dict[str, Callable[[Any], Any]] = {
        "Platt": lambda score: 1 / (1 + np.exp(-2 * np.log(score / (1 - score)) - 2)),
        "isotonic": lambda score: np.where(score < 0.15, 0.05, np.where(score < 0.6, 0.45, 0.8)),
    }
    for method, curve in curves.items():
        fit = drawn_fit(curve, count=10000)
        assert fit.methods == (method, method)
        arrays, match = drawn(curve, seed=1, count=10000)
        calibrated = replace(arrays, det_scores=fit.calibration.apply(arrays.det_scores, arrays.det_labels))
        before, after = calibration_error(arrays, match), calibration_error(calibrated, match)
        assert before.d_ece > 0.05 and after.d_ece < 0.035 and after.class_mean < 0.045
        reaches = calibrated.det_scores >= fit.calibration.thresholds("precision:0.7")[arrays.det_labels]
        assert match.true_positive[reaches].mean() == pytest.approx(0.7, abs=0.05)


def test_a_threshold_of_expected_precision_is_the_least() -> None:
    arrays, match = drawn(lambda score: score)
    calibration = fit_calibration(arrays, match, NAMES[:2]).calibration
    scores = calibration.apply(arrays.det_scores, arrays.det_labels)[arrays.det_labels == 1]
    for precision in (0.25, 0.5, 0.9):
        threshold = calibration.thresholds(f"precision:{precision}")[1]
        assert scores[scores >= threshold].mean() >= precision
        lower = np.sort(scores[scores < threshold])[::-1]
        assert not len(lower) or np.append(scores[scores >= threshold], lower[0]).mean() < precision
    assert calibration.thresholds("precision:0").tolist() == [0, 0]
    assert (np.diff(calibration.at_precision, axis=1) >= 0).all()


def test_a_rare_class_is_shrunk_to_all() -> None:
    """A class with n true positives has the weight n / (n + 50); one without any has the map of all classes."""
    arrays, match = drawn(lambda score: score, classes=2)
    few = replace(arrays, num_classes=3)
    fit = fit_calibration(few, match, NAMES)
    positive = np.bincount(arrays.det_labels[match.true_positive], minlength=3)
    np.testing.assert_allclose(fit.weights, positive / (positive + 50))
    best = fit.calibration.best_f1
    assert fit.weights[2] == 0 and np.isfinite(best).all() and best[2] > 0
    scores = np.linspace(0, 1, 50)
    assert np.abs(fit.calibration.apply(scores, np.full(50, 2)) - scores).max() < 0.1


def test_cross_fitted_scores_come_from_other_images() -> None:
    """Where scores mean nothing, a fit to few detections fits noise; the cross-fitted error shows that."""
    arrays, match = drawn(lambda score: 0 * score + 0.5, count=200)
    fit = fit_calibration(arrays, match, NAMES[:2])
    assert len(np.unique(fit.cross_fitted)) > 100
    naive = fit.calibration.apply(arrays.det_scores, arrays.det_labels)
    assert not np.array_equal(naive, fit.cross_fitted)
    errors = [
        calibration_error(replace(arrays, det_scores=one), match, bins=20).d_ece for one in (naive, fit.cross_fitted)
    ]
    assert errors[0] < errors[1]


def test_too_few_objects_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected at least 50 detected objects on 5 images, got 7 on 14 images"):
        fit_calibration(*judged(SCORES, RIGHT), names=["thing"])
    with pytest.raises(DataError, match=r"got 60 on 1 image:"):
        fit_calibration(*judged([0.5] * 60, [True] * 60, images=[0] * 60), names=["thing"])


def test_detections_of_one_image_alone_are_fitted() -> None:
    """Without it, nothing is left to fit, and scores stay as they are."""
    arrays, _ = judged(np.linspace(0.1, 0.9, 80), [True] * 60 + [False] * 20, images=[0] * 80)
    empty = Arrays.check(
        arrays.det_boxes, arrays.det_scores, arrays.det_labels, arrays.det_images,
        np.concatenate([arrays.gt_boxes, np.tile([0, 0, 9, 9], (4, 1))]),
        np.zeros(64, int), np.append(np.zeros(60, int), [1, 2, 3, 4]), num_classes=1,
    )  # fmt: skip
    fit = fit_calibration(empty, match_detections(empty), ["thing"])
    np.testing.assert_allclose(fit.cross_fitted, arrays.det_scores, atol=0.02)


# --- weights files and the detector -------------------------------------------------------------------------------


def test_a_map_comes_back_from_json_exactly_and_is_small() -> None:
    calibration = drawn_fit(lambda score: score).calibration
    text = json.dumps(calibration.to_dict())
    back = Calibration.from_dict(json.loads(text), calibration.names)
    assert json.dumps(back.to_dict()) == text and len(text) < 1000 * len(calibration.names)
    for field in ("scores", "precision", "best_f1", "at_precision"):
        assert np.array_equal(getattr(back, field), getattr(calibration, field)), field
    check_order(back)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "tiny.safetensors"
    tiny_detector().save(path, calibration=tiny_calibration().to_dict())
    return path


def check_calibrated(detector: Detector) -> None:
    """Its detections are the uncalibrated ones with mapped scores, cut by class."""
    raw, calibration = detector.uncalibrated(), tiny_calibration()
    assert raw.calibration is None and detector.calibration is not None
    image = noise(1)[0]
    for tile in (None, 48):
        before = raw.predict(image, score_threshold=0, tile=tile)
        mapped = calibration.apply(before.scores, before.labels).astype(np.float32)
        expected = replace(before, scores=mapped)
        everything = detector.predict(image, score_threshold=0, tile=tile)
        assert everything == expected and len(set(everything.labels)) == len(NAMES)
        thresholds: dict[float | str, Any] = {name: calibration.thresholds(name) for name in ("best", "precision:0.8")}
        thresholds |= {value: np.full(len(NAMES), value) for value in (0.3, float(np.median(mapped)), 1.0)}
        for name, threshold in thresholds.items():
            if tile is None:
                cut = expected[expected.scores >= threshold.astype(np.float32)[expected.labels]]
                assert detector.predict(image, score_threshold=name) == cut, name
                assert detector.predict_batch([image], score_threshold=name) == [cut], name
                assert [one for _, one in detector.stream([image], score_threshold=name)] == [cut], name


def test_a_detector_applies_the_map_after_all_choices(weights: Path) -> None:
    check_calibrated(Detector.load(weights, device="cpu"))


def test_a_saved_detector_keeps_its_map(weights: Path, tmp_path: Path) -> None:
    detector = Detector.load(weights, device="cpu")
    detector.save(tmp_path / "again.safetensors")
    assert read_tensors(tmp_path / "again.safetensors")[1]["calibration"] == tiny_calibration().to_dict()
    detector.uncalibrated().save(tmp_path / "raw.safetensors")
    assert Detector.load(tmp_path / "raw.safetensors", device="cpu").calibration is None


@pytest.mark.soak
def test_an_exported_detector_applies_it_too(tmp_path: Path) -> None:
    content = exported().read_bytes()
    fields = read_fields("tiny.onnx", content)
    content = content[: content.rindex(b"crc32") - 4]  # the metadata may be extended where the checksum begins
    (tmp_path / "a.onnx").write_bytes(seal(content, {**fields, "calibration": tiny_calibration().to_dict()}))
    check_calibrated(Detector.load(tmp_path / "a.onnx", device="cpu"))


@pytest.mark.soak
def test_an_openvino_file_applies_it_too(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from centerdet.export import export

    export(weights, tmp_path / "a.xml", form="openvino")
    check_calibrated(Detector.load(tmp_path / "a.xml", device="cpu"))


def test_names_of_thresholds_are_checked(weights: Path) -> None:
    detector = Detector.load(weights, device="cpu")
    for wrong in ("bset", "precision:", "precision:2", "precision:nan", "0.5", "precision"):
        with pytest.raises(
            ConfigError, match=r"score_threshold: expected a number from 0 to 1, 'best' or 'precision:0"
        ):
            detector.predict(noise(1)[0], score_threshold=wrong)
    with pytest.raises(ConfigError, match=r"score_threshold: .* without calibration, got 'best': run centerdet calibr"):
        tiny_detector().predict(noise(1)[0], score_threshold="best")


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no object": (lambda value: 7, "calibration: expected an object, got 7"),
    "a field is missing": (lambda value: value.pop("scores"), "calibration: 'scores' is missing"),
    "an unknown field": (lambda value: value.update(x=1), "calibration: 'x' is unknown"),
    "a long source": (lambda value: value.update(source="x" * 1000), "calibration.source: expected at most 200"),
    "falling knots": (lambda value: value["scores"].reverse(), "calibration.scores: expected numbers that rise"),
    "no knots": (lambda value: value.update(scores=[]), "calibration.scores: expected numbers that rise"),
    "huge": (lambda value: value.update(scores=[0] * 10**5), "calibration.scores: expected a list of at most 1000"),
    "no list": (lambda value: value.update(scores="0, 1"), "calibration.scores: expected a list"),
    "other classes": (
        lambda value: value["classes"].update(hexagon=value["classes"].pop("circle")),
        "calibration.classes: 'circle' is missing: run centerdet calibrate",
    ),
    "NaN": (
        lambda value: value["classes"]["circle"]["precision"].__setitem__(3, float("nan")),
        "calibration.classes.circle.precision: expected numbers from 0 to 1, got nan",
    ),
    "text": (
        lambda value: value["classes"]["circle"]["precision"].__setitem__(3, "0.1"),
        "calibration.classes.circle.precision: expected numbers from 0 to 1, got '0.1'",
    ),
    "a map that falls": (
        lambda value: value["classes"]["square"]["precision"].reverse(),
        "calibration.classes.square.precision: expected numbers that rise",
    ),
    "a map with a tie": (
        lambda value: value["classes"]["square"]["precision"].__setitem__(
            4, value["classes"]["square"]["precision"][3]
        ),
        "calibration.classes.square.precision: expected numbers that rise",
    ),
    "a short map": (
        lambda value: value["classes"]["square"]["precision"].pop(),
        "calibration.classes.square.precision: expected a list of 65 numbers, got 64 values",
    ),
    "a huge threshold": (
        lambda value: value["classes"]["square"].update(best_f1=10**400),
        "calibration.classes.square.best_f1: expected numbers from 0 to 1, got 1000",
    ),
    "no thresholds": (
        lambda value: value["classes"]["circle"].update(at_precision=[]),
        "calibration.classes.circle.at_precision: expected 2 or more",
    ),
    "thresholds that fall": (
        lambda value: value["classes"]["circle"]["at_precision"].reverse(),
        "calibration.classes.circle.at_precision: expected 2 or more that do not fall",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_metadata_that_lies_is_refused_with_file_and_field(lie: str) -> None:
    spoil, message = LIES[lie]
    value: Any = copy.deepcopy(tiny_calibration().to_dict())
    result = spoil(value)
    fields = {"names": list(NAMES), "size": 64, "calibration": result if lie == "no object" else value}
    with pytest.raises(WeightsError) as caught:
        check_header("lie.safetensors", fields)
    assert str(caught.value).startswith(f"lie.safetensors: {message}")
    assert len(str(caught.value)) < 400


# --- evaluation and the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise whose objects are detections of the tiny detector, the better ones more often: splits a and b."""
    folder, draw = tmp_path_factory.mktemp("labeled"), np.random.default_rng(0)
    samples, detector = [], tiny_detector()
    for number, pixels in enumerate(noise(16)):
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        detections = detector.predict(pixels, score_threshold=0)
        sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
        chosen = detections[(sides.min(1) > 6) & (draw.random(len(sides)) < np.linspace(0.8, 0, len(sides)))]
        boxes = np.rint(chosen.boxes).astype(float)
        samples.append(Sample(path, boxes, chosen.labels.copy(), size=(64, 64)))
    for split, part in (("a", samples[::2]), ("b", samples[1::2])):
        write_dataset(Dataset(part, NAMES), folder / "voc", split, "voc", add=split == "b")
    return folder / "voc"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.soak
def test_the_command_calibrates(labeled: Path, tmp_path: Path) -> None:
    from centerdet.data.formats import read_dataset

    path = tmp_path / "tiny.safetensors"
    tiny_detector().save(path, license="CC0-1.0")
    before = path.read_bytes()
    words = ("calibrate", path, "--data", labeled, "--split", "a", "--test-split", "b", "--device", "cpu")
    result = run(*words)
    assert result.exit_code == 0, result.output
    for word in ("circle", "D-ECE", "--split, cross-fitted", "--test-split", "a: 8 images"):
        assert word in result.output, word
    out = tmp_path / "tiny_calibrated.safetensors"
    assert path.read_bytes() == before and len(out.read_bytes()) < len(before) + 8192
    tensors, fields = read_tensors(out)
    assert fields["license"] == "CC0-1.0" and fields["calibration"]["source"] == "a: 8 images"
    assert all(np.array_equal(tensors[name], tensor) for name, tensor in read_tensors(path)[0].items())

    val = read_dataset(labeled, ["b"], names=NAMES)
    raw, calibrated = (evaluate(Detector.load(one, device="cpu"), val) for one in (path, out))
    assert np.array_equal(raw.voc.ap, calibrated.voc.ap) and raw.voc.mean_ap > 0.1
    assert not np.array_equal(raw.results.scores, calibrated.results.scores)
    cut = evaluate_detections(calibrated.results, val, score_threshold=0.4)
    assert evaluate(Detector.load(out, device="cpu"), val, score_threshold=0.4).to_dict() == cut.to_dict()

    assert "exists already: pass --out" in str(run(*words).exception)
    for score, expected in (("best", 0), ("7", 2), ("bset", 1)):
        done = run("predict", out, labeled / "JPEGImages" / "0.png", "--score", score, "--quiet", "--device", "cpu")
        assert done.exit_code == expected, score


def test_the_command_refuses_what_makes_no_sense(labeled: Path, weights: Path, tmp_path: Path) -> None:
    here = ("--data", labeled, "--device", "cpu", "--out", tmp_path / "out.safetensors")
    assert "--test-split: 8 images" in run("calibrate", weights, *here, "--split", "a", "--test-split", "a").output
    assert "--split: expected one or more of a, b" in run("calibrate", weights, *here).output
    (tmp_path / "tiny.onnx").touch()
    assert "is exported" in str(run("calibrate", tmp_path / "tiny.onnx", *here, "--split", "a").exception)
    sample = Sample(labeled / "JPEGImages" / "0.png", np.zeros((0, 4)), np.zeros(0, int), size=(64, 64))
    write_dataset(Dataset([sample], NAMES), tmp_path / "empty", "a", "voc")
    empty = run("calibrate", weights, "--data", tmp_path / "empty", "--split", "a", "--device", "cpu", *here[4:])
    assert "expected at least 50 detected objects" in str(empty.exception)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.soak
def test_a_calibration_is_replaced_whatever_it_is(labeled: Path, tmp_path: Path) -> None:
    """Its own one, since raw scores are fitted, and one for other classes."""
    results = []
    for number, names in enumerate((NAMES, ("cat", "dog"))):
        path = tmp_path / f"{number}.safetensors"
        tiny_detector().save(path, calibration=tiny_calibration(names).to_dict())
        done = run("calibrate", path, "--data", labeled, "--split", "a", "--out", path, "--device", "cpu", "--quiet")
        assert (done.exit_code, done.output) == (0, ""), done.exception
        results.append(read_tensors(path)[1]["calibration"])
    assert results[0] == results[1] != tiny_calibration().to_dict()
