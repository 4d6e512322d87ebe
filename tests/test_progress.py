"""What a training says of itself: the CSV, and TensorBoard's files as TensorBoard reads them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_config

from centerdet import Detections, images
from centerdet.data.formats import read_dataset
from centerdet.data.shapes import write_shapes
from centerdet.evaluation.evaluation import Evaluation, evaluate_detections
from centerdet.training.loop import train
from centerdet.training.progress import Progress, cut_log, write_log
from centerdet.training.tensorboard import find_tensorboard, write_tensorboard


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("watch") / "shapes"
    write_shapes(root, train=4, val=6, size=64)
    return root


@pytest.fixture(scope="module")
def validation(data: Path) -> Evaluation:
    """Half of the objects found, the sure ones, and something wrong in every image."""
    dataset, found = read_dataset(data, ["val"]), []
    for sample in dataset.samples:
        boxes = np.concatenate([sample.boxes[::2], [[0, 0, 3, 3]]])
        scores = np.append(np.linspace(0.9, 0.4, len(boxes) - 1), 0.35)
        found.append(
            Detections(
                boxes.astype(np.float32), scores.astype(np.float32), np.append(sample.labels[::2], 0), dataset.names,
                images.load(sample.path).shape[:2],
            )
        )  # fmt: skip
    return evaluate_detections(found, dataset)


def _now(step: int, validation: Evaluation | None = None) -> Progress:
    return Progress(step, 100, step / 8, 64, 2.5, 1.5, 1e-3, 20.0, 9.0, validation)


def _read(folder: Path) -> "EventAccumulator":  # type: ignore[name-defined] # noqa: F821
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_the_log_is_a_csv_that_can_be_cut(validation: Evaluation, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    cut_log(log, 0)
    for now in (_now(10), _now(20, validation), _now(30)):
        write_log(log, now)
    cut_log(log, 20)
    assert log.read_text().splitlines() == [
        "step,epoch,size,heatmap_loss,box_loss,lr,voc_area,voc07_11pt",
        "10,1.25,64,2.5000,1.5000,0.001000,,",
        f"20,2.50,64,2.5000,1.5000,0.001000,{validation.voc.mean_ap:.4f},{validation.voc.mean_ap_11pt:.4f}",
    ]


@pytest.mark.parametrize("rest", ["", "2", "30,3", "30,3.75,64,2.5000,1.5000,0.001000,,", "3\0\0,,,,,,,\n"])
def test_a_line_that_was_cut_off_is_dropped_on_resume(tmp_path: Path, rest: str) -> None:
    log = tmp_path / "log.csv"
    for step in (10, 20):
        write_log(log, _now(step))
    whole = log.read_text()
    with log.open("a") as file:
        file.write(rest)
    cut_log(log, 25)
    assert log.read_text() == whole
    write_log(log, _now(30))
    assert [line.split(",")[0] for line in log.read_text().splitlines()] == ["step", "10", "20", "30"]
    log.write_text("step,epo")
    cut_log(log, 0)
    write_log(log, _now(10))
    assert log.read_text().splitlines() == whole.splitlines()[:2]


def test_tensorboard_reads_scalars_curves_and_images(validation: Evaluation, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with find_tensorboard()(str(tmp_path)) as board:
        write_tensorboard(board, _now(10))
        write_tensorboard(board, _now(20, validation))
    events = _read(tmp_path)
    tags = events.Tags()
    assert [(one.step, one.value) for one in events.Scalars("loss/heatmap")] == [(10, 2.5), (20, 2.5)]
    assert {"loss/box", "training/lr", "training/size", "training/images per second"} < set(tags["scalars"])
    voc = validation.voc
    assert [(one.step, one.value) for one in events.Scalars("mean/voc-area")] == [(20, pytest.approx(voc.mean_ap))]
    drawn = [one for one in tags["images"] if one.startswith("validation/")]
    assert len(drawn) == 4
    shown = images.load(events.Images(drawn[0])[0].encoded_image_string)
    first = images.load(next(path for path in validation.paths if drawn[0].endswith(path.name)))
    assert shown.shape == first.shape and (shown != first).any()

    for label, name in enumerate(validation.names):
        if not voc.num_positive[label]:
            continue
        assert events.Scalars(f"voc-area/{name}")[0].value == pytest.approx(voc.ap[label])
        proto = events.Tensors(f"precision and recall/{name}")[0].tensor_proto
        found, wrong, _, missed, precision, recall = np.array(proto.float_val).reshape(6, -1)
        assert (found + missed == voc.num_positive[label]).all()
        np.testing.assert_allclose(recall, found / voc.num_positive[label], atol=1e-6)
        np.testing.assert_allclose(precision * (found + wrong), found, atol=1e-5)
        curve = voc.curve(label)
        for threshold, count, value in zip(np.linspace(0, 1, len(found)), found, precision, strict=True):
            reached = int((curve.scores >= threshold).sum())
            assert count == reached and value == pytest.approx(curve.precision[reached - 1] if reached else 1)


@pytest.mark.soak
def test_a_resumed_training_writes_every_tenth_step_once(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 10:
            raise Stop

    config = tiny_config(
        data, tmp_path, batch=1, epochs=3, val=("val",), val_every=3, checkpoint_every=4, tensorboard=True
    )
    with pytest.raises(Stop):
        train(config, progress=stop)
    train(config, resume=True)
    events = _read(tmp_path / "tensorboard")
    assert [one.step for one in events.Scalars("training/lr")] == [10, 12]
    assert [one.step for one in events.Scalars("mean/voc-area")] == [12]


@pytest.mark.soak
def test_without_the_package_the_line_to_install_it_is_said(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from centerdet import TrainConfig, train\n"
        f"train(TrainConfig('no data', {str(tmp_path / 'run')!r}, tensorboard=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'centerdet[tensorboard]'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
