"""`centerdet predict` on real files: every source, what is written where, and what broken ones leave behind."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import supervision
from defusedxml import ElementTree
from local_server import QuietHandler, serve
from PIL import Image
from pycocotools.coco import COCO
from tiny import NAMES, tiny_detector
from typer.testing import CliRunner, Result

from centerdet.cli import app
from centerdet.detector import Detector
from centerdet.errors import CenterdetError, ConfigError, DataError

runner = CliRunner()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny_detector().save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images and a broken one."""
    root = tmp_path / "naïve images"
    root.mkdir()
    for number in (1, 2, 10):
        noise = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
    (root / "9.jpg").write_bytes((root / "1.png").read_bytes()[:200])
    return root


def call(weights: Path, *words: object, threshold: float = 0.01) -> Result:
    arguments = ["predict", "--score", str(threshold), str(weights), *map(str, words)]
    return runner.invoke(app, arguments, catch_exceptions=False)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_clip(path: Path) -> None:
    """A video of 12 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for noise in np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())


def test_a_folder_with_a_broken_image(weights: Path, images: Path, tmp_path: Path) -> None:
    result = call(weights, images, "--out", tmp_path / "found", "--json", tmp_path / "found.jsonl")
    assert result.exit_code == 1
    assert "9.jpg: broken" in result.stderr and "objects in 3 images, 1 could not be read" in result.stderr
    assert files(tmp_path / "found") == ["1.jpg", "10.jpg", "2.jpg"]
    with Image.open(tmp_path / "found" / "1.jpg") as drawn:
        assert drawn.size == (60, 40)
    rows = lines((tmp_path / "found.jsonl").read_text())
    assert [row["source"] for row in rows] == [str(images / name) for name in ("1.png", "2.png", "9.jpg", "10.png")]
    assert "broken" in str(rows[2]["error"])
    detector = Detector.load(weights, device="cpu")
    assert rows[0] == detector.predict(images / "1.png", score_threshold=0.01).to_dict()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_printed(weights: Path, images: Path) -> None:
    result = call(weights, f"{images}/1*.png")
    assert result.exit_code == 0
    shown = result.stdout.splitlines()
    assert shown[0].startswith(f"{images}/1.png: ") and any(name in shown[0] for name in NAMES)
    assert len(shown) == 2
    assert call(weights, images / "1.png", threshold=1).stdout == f"{images}/1.png: nothing\n"
    quiet = call(weights, images / "1.png", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    (row,) = lines(call(weights, images / "1.png", "--json", "-", "--threads", 1).stdout)
    assert row["height"] == 40 and row["objects"]


def test_names_are_shown_as_they_are(weights: Path, images: Path) -> None:
    odd = images / "[bold] :car: \udcff.png"  # markup, an emoji's name, a byte that is no UTF-8
    (images / "1.png").rename(odd)
    result = call(weights, odd, "--json", "-")
    assert lines(result.stdout)[0]["source"] == str(odd)
    assert call(weights, odd).stdout.startswith(f"{images}/[bold] :car: \\udcff.png: ")
    odd.write_bytes(b"broken")
    assert "[bold] :car: " in call(weights, odd).stderr


@pytest.mark.parametrize("labels", ["voc", "yolo", "coco"])
def test_names_of_any_bytes_reach_every_output(weights: Path, images: Path, tmp_path: Path, labels: str) -> None:
    odd = images / "\udcff\udce4 猫.png"
    (images / "1.png").rename(odd)
    words = ("--out", tmp_path / "found", "--csv", tmp_path / "a.csv", "--labels", labels)
    assert call(weights, odd, *words, "--json", tmp_path / "a.jsonl").exit_code == 0
    assert lines((tmp_path / "a.jsonl").read_text())[0]["source"] == str(odd)
    assert os.fsencode(odd) in (tmp_path / "a.csv").read_bytes()
    assert (tmp_path / "found" / f"{odd.stem}.jpg").is_file()


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(one, marks=pytest.mark.soak) for one in ("cp1252", "utf-8"))]
)
def test_a_terminal_of_any_encoding(images: Path, tmp_path: Path, encoding: str) -> None:
    detector = tiny_detector()
    detector.runtime.names = ("猫", "größe", "\u2028")
    detector.save(tmp_path / "tiny.safetensors")
    names = ["Größe.png", "собака 🐶.png", "\udcff.png"]
    for name in names:
        shutil.copy(images / "1.png", tmp_path / name)
    (tmp_path / "猫.jpg").write_text("no image")
    command = [sys.executable, "-m", "centerdet", "predict", str(tmp_path / "tiny.safetensors"), "--score", "0.01"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*command, str(tmp_path)], env=environment, capture_output=True, check=False)
    shown, told = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 1 and "Traceback" not in told
    for name in names:
        assert f"{name.encode(encoding, 'backslashreplace').decode(encoding)}: " in shown
    assert f"error: {tmp_path}/" + "猫.jpg: expected".encode(encoding, "backslashreplace").decode(encoding) in told


def test_standard_input(weights: Path, images: Path, tmp_path: Path) -> None:
    words = ["predict", "--score", "0.01", str(weights), "-", "--json", "-", "--out", str(tmp_path / "found")]
    result = runner.invoke(app, words, input=(images / "1.png").read_bytes(), catch_exceptions=False)
    [row] = lines(result.stdout)
    expected = Detector.load(weights, device="cpu").predict(images / "1.png", score_threshold=0.01)
    assert {**row, "source": None} == {**expected.to_dict(), "source": None} and row["source"] == "-"
    assert result.exit_code == 0 and len(files(tmp_path / "found")) == 1


def test_what_is_passed_over_is_counted(weights: Path, images: Path) -> None:
    for name in ("._1.png", "Thumbs.db", "notes.txt"):
        (images / name).write_text("no image")
    told = call(weights, images).stderr
    assert f"passed over: 2 files (hidden), such as {images}/._1.png\n" in told
    assert f"passed over: 1 file (other suffix), such as {images}/notes.txt\n" in told
    assert "9.jpg: broken" in told and "in 3 images, 1 could not be read" in told


def test_sources_of_one_name_do_not_overwrite_each_other(weights: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("1.bmp", "1_2.bmp"):
        Image.new("RGB", (30, 20)).save(tmp_path / "more" / name)
    result = call(weights, images / "1.png", tmp_path / "more", "--out", tmp_path / "found")
    assert result.exit_code == 0
    assert files(tmp_path / "found") == ["1.jpg", "1_2.jpg", "1_2_2.jpg"]


def read_clip(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames and frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(stream.average_rate)


def test_a_video_gives_an_annotated_one_also_where_it_breaks(weights: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path)
    Image.new("RGB", (30, 20)).save(tmp_path / "clip.png")
    result = call(weights, path, tmp_path / "clip.png", "--out", tmp_path / "found")
    assert result.exit_code == 0
    assert files(tmp_path / "found") == ["clip.mkv", "clip_2.jpg"]
    frames, rate = read_clip(tmp_path / "found" / "clip.mkv")
    assert (len(frames), frames[0].shape, rate) == (12, (48, 64, 3), 10.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = call(weights, path, "--out", tmp_path / "some")
    assert result.exit_code == 1
    assert "clip.mkv: " in result.stderr
    assert files(tmp_path / "some") == ["clip.mkv"] and 0 < len(read_clip(tmp_path / "some" / "clip.mkv")[0]) < 12


def test_a_video_keeps_audio_rotation_and_odd_sides(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "loud.mp4"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=5), container.add_stream("aac", rate=16000)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 3200), np.int16), format="s16", layout="mono")
            tone.sample_rate, tone.pts = 16000, 3200 * number
            container.mux(audio.encode(tone))
        container.mux(video.encode())
        container.mux(audio.encode())
    assert call(weights, path, "--out", tmp_path / "out", threshold=1).exit_code == 0
    with av.open(str(tmp_path / "out" / "loud.mp4")) as made, av.open(str(path)) as source:
        for container in (made, source):
            assert container.streams.video[0].average_rate == 5
        sounds = [sum(frame.samples for frame in one.decode(one.streams.audio[0])) for one in (made, source)]
    assert sounds[0] == sounds[1] > 16000
    frames, _ = read_clip(tmp_path / "out" / "loud.mp4")
    assert len(frames) == 10 and [round(frame.mean() / 20) for frame in frames] == list(range(10))


@pytest.mark.soak
def test_a_video_that_cannot_be_written_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"  # as a full disk: writes fail
        "from centerdet.cli import main\nmain()"
    )
    words = ["predict", weights, tmp_path / "clip.mkv", "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "cannot be written" in done.stderr
    assert [name for name in files(tmp_path / "out") if name != ".predict.jsonl"] == []


def test_a_stream_in_the_place_of_a_webcam(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV opens a video file as it opens a camera: what arrives is real, the device is not."""
    clip, capture = tmp_path / "clip.mkv", cv2.VideoCapture
    write_clip(clip)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture(str(clip)))
    result = call(weights, 0, "--out", tmp_path / "found", "--json", tmp_path / "found.jsonl")
    assert "no image after frame 11" in result.stderr
    made = files(tmp_path / "found")
    assert made and all(re.fullmatch(r"webcam 0/0000\d\d\.jpg", name) for name in made)
    assert len(lines((tmp_path / "found.jsonl").read_text())) == len(made) + 1


def test_classes_limits_and_the_table(weights: Path, images: Path, tmp_path: Path) -> None:
    everything = lines(call(weights, images / "1.png", "--json", "-").stdout)[0]["objects"]
    words = (images / "1.png", "--classes", "square", "--classes", "circle", "--max-detections", 3)
    some = lines(call(weights, *words, "--json", "-").stdout)[0]["objects"]
    assert some == [one for one in everything if one["name"] in ("square", "circle")][:3]  # type: ignore[attr-defined,index]
    fewer = lines(call(weights, images / "1.png", "--nms-iou", 0, "--json", "-").stdout)[0]["objects"]
    assert 0 < len(fewer) < len(everything)  # type: ignore[arg-type]
    assert call(weights, *words, "--csv", tmp_path / "a.csv").exit_code == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [(row["name"], float(row["score"]), float(row["x1"])) for row in rows] == [
        (one["name"], one["score"], one["box"][0])
        for one in some  # type: ignore[attr-defined]
    ]
    assert {row["source"] for row in rows} == {str(images / "1.png")}
    with pytest.raises(ConfigError, match=r"--classes: no class 'cirle'; .*circle"):
        call(weights, images / "1.png", "--classes", "cirle")


@pytest.mark.parametrize("form", ["voc", "yolo", "coco"])
def test_label_files_are_read_by_others(form: str, weights: Path, images: Path, tmp_path: Path) -> None:
    (images / "9.jpg").unlink()
    result = call(weights, images, "--out", tmp_path / "out", "--labels", form, "--json", tmp_path / "found.jsonl")
    assert result.exit_code == 0
    rows = lines((tmp_path / "found.jsonl").read_text())
    folder = tmp_path / "out" / "labels"
    if form == "coco":
        coco = COCO(str(folder / "instances.json"))
        assert sorted(one["file_name"] for one in coco.imgs.values()) == ["1.png", "10.png", "2.png"]
        assert len(coco.anns) == sum(len(row["objects"]) for row in rows)  # type: ignore[arg-type]
        assert [one["name"] for one in coco.cats.values()] == list(NAMES)
    else:
        suffix = {"voc": "xml", "yolo": "txt"}[form]
        assert {f"{number}.{suffix}" for number in (1, 2, 10)} <= set(files(folder))
        for row in rows:
            path = folder / f"{Path(str(row['source'])).stem}.{suffix}"
            if form == "voc":
                count = len(ElementTree.parse(path).findall("object"))
            else:
                count = len(path.read_text().splitlines())
                assert (folder / "classes.txt").read_text().split() == list(NAMES)
            assert count == len(row["objects"])  # type: ignore[arg-type]
        ours = read_dataset_of(form, images, folder)
        assert sum(map(len, ours.values())) == sum(len(row["objects"]) for row in rows)  # type: ignore[arg-type]


def read_dataset_of(form: str, images: Path, folder: Path) -> dict[str, supervision.Detections]:
    """The annotations as supervision reads them."""
    if form == "voc":
        data = supervision.DetectionDataset.from_pascal_voc(str(images), str(folder))
    else:
        (folder / "data.yaml").write_text("names: [" + ", ".join(NAMES) + "]\n")
        data = supervision.DetectionDataset.from_yolo(str(images), str(folder), str(folder / "data.yaml"))
    return dict(data.annotations)


def test_label_files_beside_images_replace_none(weights: Path, images: Path) -> None:
    (images / "9.jpg").unlink()
    assert call(weights, images, "--labels", "yolo").exit_code == 0
    names = {"1.png", "1.txt", "2.png", "2.txt", "10.png", "10.txt", "classes.txt"}
    assert set(files(images)) == names
    with pytest.raises(ConfigError, match=r"--labels: .*1\.txt exists"):
        call(weights, images, "--labels", "yolo")
    result = call(weights, images, "--labels", "coco")
    assert result.exit_code == 2 and "--labels" in result.stderr


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when so many images are done."""
    stream = Detector.stream_images

    def stopping(*arguments: object, **options: object) -> Iterator[object]:
        for number, one in enumerate(stream(*arguments, **options)):  # type: ignore[arg-type]
            if number == count:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(Detector, "stream_images", stopping)


@pytest.mark.parametrize("count", [3, *(pytest.param(one, marks=pytest.mark.soak) for one in (0, 1, 9))])
def test_resume_neither_repeats_nor_loses_anything(
    count: int, weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clip.mkv")
    out, table = tmp_path / "out", tmp_path / "a.csv"
    words = (images, tmp_path / "clip.mkv", "--labels", "coco", "--csv", table, "--json")
    whole = call(weights, *words, tmp_path / "whole.jsonl", "--out", tmp_path / "whole")
    assert whole.exit_code == 1 and ".predict.jsonl" not in files(tmp_path / "whole")
    expected = table.read_text()
    with monkeypatch.context() as patch:
        stop_after(count, patch)
        assert call(weights, *words, tmp_path / "part.jsonl", "--out", out).exit_code == 130
    times = {name: (out / name).stat().st_mtime_ns for name in files(out) if name.endswith(".jpg")}
    with (out / ".predict.jsonl").open("ab") as file:
        file.write(b'{"source": "cut o')
    done = call(weights, *words, tmp_path / "all.jsonl", "--out", out, "--resume")
    assert done.exit_code == 1 and "in 15 images, 1 could not be read" in done.stderr
    assert ("finished before" in done.stderr) == (count > 0)
    assert lines((tmp_path / "all.jsonl").read_text()) == lines((tmp_path / "whole.jsonl").read_text())
    assert table.read_text() == expected and files(out) == files(tmp_path / "whole")
    for name in ("labels/instances.json", "1.jpg"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all((out / name).stat().st_mtime_ns == before for name, before in times.items())
    assert len(read_clip(out / "clip.mkv")[0]) == 12


def test_resume_with_other_options_is_refused(
    weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        call(weights, images, "--out", out)
    for words, name in (
        (["--classes", "circle"], "classes"), (["--nms-iou", 0.5], "nms_iou"), (["--labels", "yolo"], "labels"),
        (["--tile", 64], "tile"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"--resume: {name} was .* in the stopped run, and is .* now"):
            call(weights, images, "--out", out, "--resume", *words)
    with pytest.raises(ConfigError, match="--resume: score_threshold was"):
        call(weights, images, "--out", out, "--resume", threshold=0.02)
    assert call(weights, images, "--resume").exit_code == 2
    with pytest.raises(ConfigError, match="got a webcam"):
        call(weights, 0, "--out", out, "--resume")


def test_no_source_is_written_over(weights: Path, images: Path, tmp_path: Path) -> None:
    """Neither by a copy beside it, nor through a link, nor by a video's frames, nor by the lines of JSON."""
    photo = images / "photo.jpg"
    Image.new("RGB", (60, 40)).save(photo)
    (tmp_path / "link").symlink_to(images)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "photo.jpg").hardlink_to(photo)
    (images / "clip").mkdir()
    write_clip(images / "clip.mkv")
    (images / "clip" / "clip.mkv").hardlink_to(images / "clip.mkv")
    before = {path: path.read_bytes() for path in images.rglob("*.*")}
    refused = {
        (images, "--out", images): f"--out: {images} is the folder of the source {images}/",
        (f"{images}/*.jpg", "--out", tmp_path / "link"): f"--out: {tmp_path}/link is the folder of the source ",
        (photo, "--out", tmp_path / "found"): f"{tmp_path}/found/photo.jpg: would overwrite the source {photo}",
        (images / "clip" / "clip.mkv", "--out", images): f"{images}/clip.mkv: would overwrite the source ",
        (photo, "--json", photo): f"--json: {photo} is the source {photo}",
    }
    for words, message in refused.items():
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*: choose another"):
            call(weights, *words)
    assert before == {path: path.read_bytes() for path in before}


def test_what_is_named_twice_is_looked_at_once(weights: Path, images: Path) -> None:
    again = f"{images}/../{images.name}/2.png"
    result = call(weights, f"{images}/10.*", images / "2.png", images, f"{images}/*.png", again, "--json", "-")
    assert [Path(str(row["source"])).name for row in lines(result.stdout)] == ["10.png", "2.png", "1.png", "9.jpg"]


def test_images_that_are_called_like_frames(weights: Path, images: Path, tmp_path: Path) -> None:
    for name in ("walk frame 3", "a.mp4 frame 3.png"):
        shutil.copy(images / "1.png", images / name)
    result = call(weights, images / "walk frame 3", images / "a.mp4 frame 3.png", "--out", tmp_path / "found")
    assert result.exit_code == 0
    assert files(tmp_path / "found") == ["a.mp4 frame 3.jpg", "walk frame 3.jpg"]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["{}/empty"], DataError, "has no images"),
        (["{}/1.png", "{}/*.gif"], DataError, "no file fits"),
        (["{}/1.png", "http://127.0.0.1:9/cat.jpg"], ConfigError, "--allow-urls"),
    ],
)
def test_what_cannot_be_meant_leaves_nothing(
    weights: Path, images: Path, words: list[str], error: type[CenterdetError], message: str
) -> None:
    (images / "empty").mkdir()
    with pytest.raises(error, match=message):
        call(weights, *(word.format(images) for word in words), "--out", images / "found")
    assert not (images / "found").exists()


def test_a_webcam_that_is_not_there(weights: Path) -> None:
    result = call(weights, 97)
    assert result.exit_code == 1
    assert "webcam 97: cannot be opened" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--tile", 5],
        ["--overlap", 2],
        ["--overlap", 0.2],
        ["--threads", 0],
        ["--score-threshold", 7],
        ["--json", "none/a"],
        ["--json", "."],
    ],
)
def test_wrong_usage(weights: Path, words: list[object]) -> None:
    result = call(weights, "a.png", *words)
    assert result.exit_code == 2 and str(words[0]) in result.stderr


@pytest.mark.soak
def test_ctrl_c_keeps_what_was_found(weights: Path, tmp_path: Path) -> None:
    for number in range(300):
        Image.new("RGB", (640, 480), (number % 256, 0, 0)).save(tmp_path / f"{number:03}.png")
    command = [
        sys.executable,
        "-m",
        "centerdet",
        "predict",
        str(weights),
        str(tmp_path),
        "--json",
        str(tmp_path / "found"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert "nothing" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    rows = lines((tmp_path / "found").read_text())
    assert process.returncode == 130 and re.fullmatch(r"0 objects in \d+ images, stopped\n", told)
    assert 5 <= len(rows) < 300 and not list(tmp_path.glob(".*"))


def test_tiles(weights: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (row,) = lines(call(weights, tmp_path / "a.png", "--json", "-", "--tile", 64, "--overlap", 0.5).stdout)
    detector = Detector.load(weights, device="cpu")
    assert row == detector.predict(tmp_path / "a.png", score_threshold=0.01, tile=64, overlap=0.5).to_dict()


class _Server(QuietHandler):
    """An image at /cat.png, a text at every other address."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content if self.path.startswith("/cat.png") else b"no image")


@pytest.fixture
def server(images: Path) -> Iterator[str]:
    handler = type("Handler", (_Server,), {"content": (images / "1.png").read_bytes()})
    with serve(handler) as address:
        yield address


def test_urls(weights: Path, server: str, tmp_path: Path) -> None:
    urls = [f"{server}/cat.png?of=a/b", f"{server}/text", f"{server}/cat.png"]
    result = call(weights, *urls, "--allow-urls", "--out", tmp_path / "found")
    assert result.exit_code == 1
    assert f"{server}/text: " in result.stderr
    assert files(tmp_path / "found") == ["cat.jpg", "cat_2.jpg"]
