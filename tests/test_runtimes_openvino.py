"""OpenVINO gives PyTorch's results, and refuses every pair of files that is not ours."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exporting import exported, noise
from tiny import NAMES, tiny_detector

from centerdet import Detector
from centerdet.errors import ConfigError, MissingWeightsError, WeightsError
from centerdet.export import compare, find_photographs
from centerdet.runtimes import open_runtime
from centerdet.runtimes.openvino import OpenVinoRuntime, check_seal, seal


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A copy to damage."""
    for suffix in (".xml", ".bin"):
        shutil.copy(exported(".xml").with_suffix(suffix), tmp_path / f"bad{suffix}")
    return tmp_path / "bad.xml"


def reseal(path: Path, old: str, new: str) -> None:
    """Replace a text and put the right checksum."""
    xml = path.read_bytes()
    xml = xml[: xml.rfind(b"<!-- crc32")]
    assert old.encode() in xml
    path.write_bytes(seal(xml.replace(old.encode(), new.encode()), path.with_suffix(".bin").read_bytes()))


def test_results_are_pytorchs_for_any_batch() -> None:
    off = compare(tiny_detector().runtime, open_runtime(exported(".xml")), noise(3))
    assert off.boxes <= 0.05 and off.scores <= 1e-4 and off.detections


def test_the_detector_is_the_same_class_with_the_same_results() -> None:
    ours, theirs = Detector.load(exported(".xml"), threads=1), tiny_detector()
    assert (ours.names, ours.size, ours.nms_iou) == (NAMES, theirs.size, theirs.nms_iou)
    for image in find_photographs():
        mine, other = (one.predict(image, score_threshold=0.0) for one in (ours, theirs))
        np.testing.assert_allclose(mine.scores[:10], other.scores[:10], atol=1e-4)  # later ones tie


def test_results_stay_when_the_next_image_runs() -> None:
    runtime = open_runtime(exported(".xml"))
    first = runtime.run(noise(1))
    copies = [part.copy() for part in first]
    runtime.run(noise(2)[1:])
    assert all(np.array_equal(part, copy) for part, copy in zip(first, copies, strict=True))


def test_images_may_be_read_only() -> None:
    runtime, images = OpenVinoRuntime.load(exported(".xml"), threads=1), noise(1)
    images.setflags(write=False)
    assert np.array_equal(runtime.run(images)[1], runtime.run(images.copy())[1])


def test_devices_go_by_name() -> None:
    with pytest.raises(ConfigError, match=r"device: tpu cannot be used on this machine: expected one of cpu"):
        open_runtime(exported(".xml"), device="tpu")


def test_seal_and_check_seal_are_inverse() -> None:
    check_seal(Path("a.xml"), seal(b"<net/>", b"weights"), b"weights")
    with pytest.raises(WeightsError, match=r"crc32: damaged, or a\.bin belongs to another file"):
        check_seal(Path("a.xml"), seal(b"<net/>", b"weights"), b"others")


def test_truncations_and_flipped_bits_are_refused(pair: Path) -> None:
    generator = np.random.default_rng(0)
    for path in (pair, pair.with_suffix(".bin")):
        content = path.read_bytes()
        for length in range(0, len(content), len(content) // 8 + 1):
            path.write_bytes(content[:length])
            with pytest.raises(WeightsError, match=r"bad\.xml: crc32"):
                Detector.load(pair)
        for position in generator.integers(0, len(content), 20).tolist():
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(generator.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(WeightsError, match=r"bad\.xml: crc32"):
                Detector.load(pair)
        path.write_bytes(content)
    assert Detector.load(pair).names == NAMES


def test_missing_weights_and_other_xml(pair: Path) -> None:
    pair.with_suffix(".bin").unlink()
    with pytest.raises(MissingWeightsError, match=r"bad\.bin: no such weights file"):
        Detector.load(pair)
    pair.with_suffix(".bin").write_bytes(b"")
    pair.write_bytes(b"<annotation><object/></annotation>")
    with pytest.raises(WeightsError, match="crc32: none at its end"):
        Detector.load(pair)
    pair.write_bytes(seal(pair.read_bytes(), b""))
    with pytest.raises(WeightsError, match=r"bad\.xml: openvino .* cannot read it"):
        Detector.load(pair)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("&quot;size&quot;: 64", "&quot;size&quot;: 96", r"images: expected tensor\(uint8\) \['any', 96, 96, 3\]"),
        ("&quot;format&quot;: 1", "&quot;format&quot;: 2", "format: expected 1, got 2"),
        ("&quot;nms_iou&quot;: 0.6", "&quot;nms_iou&quot;: 6", "nms_iou: expected a number"),
        ("{&quot;format&quot;", "{{&quot;format&quot;", "cannot read it"),
    ],
)
def test_metadata_that_lies(old: str, new: str, message: str, pair: Path) -> None:
    reseal(pair, old, new)
    with pytest.raises(WeightsError, match=rf"bad\.xml: .*{message}"):
        Detector.load(pair)


def test_too_few_names_are_noticed_when_a_label_has_none(pair: Path) -> None:
    names = json.dumps(list(NAMES)).replace('"', "&quot;")
    reseal(pair, names, "[&quot;circle&quot;]")
    with pytest.raises(WeightsError, match=r"names: the graph returns label \d, and its metadata has 1 names"):
        Detector.load(pair).predict(noise(1)[0], score_threshold=0.0)


def test_signals_are_handled_after_detectors_are_gone() -> None:
    program = (
        "import gc, signal, sys\nfrom centerdet import Detector\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "first, second = (Detector.load(sys.argv[1], threads=1) for _ in range(2))\n"
        "del first; gc.collect(); del second; gc.collect()\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, exported(".xml")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n")
