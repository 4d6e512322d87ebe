"""Datasets that label different classes: what is labeled where, and how often each image is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from centerdet.data.formats import keep_classes, read_dataset, write_dataset
from centerdet.data.records import ReadOptions
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import write_shapes
from centerdet.errors import CenterdetError, ConfigError, DataError
from centerdet.images import read_size
from centerdet.training.config import PRESETS
from centerdet.training.mixture import choose_preset, mix, parse_source, read_mixture


def _dataset(names: tuple[str, ...], rows: list[list[int]], stem: str = "a") -> Dataset:
    samples = [
        Sample(Path(f"{stem}{number}.jpg"), np.tile([0.0, 0.0, 9.0, 9.0], (len(row), 1)), np.asarray(row, np.int64))
        for number, row in enumerate(rows)
    ]
    return Dataset(samples, names)


ROOMS = _dataset(("chair", "person"), [[0], [0, 1], [1], []], "room")
STREETS = _dataset(("car", "person"), [[0], [1]], "street")


def test_classes_are_the_union_in_order_of_appearance() -> None:
    mixture = mix([ROOMS, STREETS])
    assert mixture.names == ("chair", "person", "car")
    assert [sample.labels.tolist() for sample in mixture.samples] == [[0], [0, 1], [1], [], [2], [1]]
    assert mixture.labeled.tolist() == [[True, True, False]] * 4 + [[False, True, True]] * 2
    assert mix([STREETS], ("person",)).labeled.all()
    chosen = mix([ROOMS, STREETS], ("person", "chair"))
    assert chosen.labeled.tolist() == [[True, True]] * 4 + [[True, False]] * 2


def test_shares_are_of_datasets_and_by_default_as_they_have_images() -> None:
    for shares, expected in (((), [4 / 6, 2 / 6]), ((1, 1), [0.5, 0.5]), ((0.2, 0.6), [0.25, 0.75]), ((1, 0), [1, 0])):
        for balance in (0.0, 1.0):
            weights = mix([ROOMS, STREETS], shares=shares, balance=balance).weights
            assert weights.sum() == pytest.approx(1)
            assert [weights[:4].sum(), weights[4:].sum()] == pytest.approx(expected)


def test_weights_follow_the_rarest_class() -> None:
    rows = [[0]] * 10 + [[0, 1]] + [[]] + [[1]]  # class 0 on 11 images, class 1 on one that counts
    dataset = _dataset(("common", "rare"), rows)
    dataset.samples[12].difficult[:] = True
    assert mix([dataset], balance=0.0).weights == pytest.approx(1 / 13)
    expected = np.asarray([1.0] * 10 + [11.0, 1.0, 1.0])
    assert mix([dataset], balance=1.0).weights == pytest.approx(expected / expected.sum())
    assert mix([dataset], balance=0.5).weights == pytest.approx(expected**0.5 / (expected**0.5).sum())


def test_a_class_is_rare_among_the_images_where_it_is_labeled() -> None:
    # "b" is on 1 of 10 images that label it, "a" on 9 of 10, whatever the second dataset adds without labeling "b".
    first = _dataset(("a", "b"), [[0]] * 9 + [[1]])
    second = _dataset(("a",), [[0]] * 90, "second")
    alone = mix([first], balance=1.0).weights
    weights = mix([first, second], balance=1.0).weights[:10]
    assert weights[9] / weights[0] == pytest.approx(99 / 100 / 0.1)
    assert alone[9] / alone[0] == pytest.approx(9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data", ("data", ("train",))),
        ("data=a", ("data", ("a",))),
        ("data=2007:train,2012:extra", ("data", ("2007:train", "2012:extra"))),
        ("odd=name=a", ("odd=name", ("a",))),
    ],
)
def test_sources_name_their_splits(text: str, expected: tuple[str, tuple[str, ...]]) -> None:
    assert parse_source(text, ("train",)) == expected


def test_a_path_with_an_equals_sign_is_itself_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert parse_source(str(tmp_path / "a=b"), ("train",)) == (str(tmp_path / "a=b"), ("train",))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Shapes in VOC layout, and one class of the same as YOLO."""
    root = tmp_path_factory.mktemp("mixture")
    write_shapes(root / "voc", train=6, val=2, size=64)
    [circles] = keep_classes([read_dataset(root / "voc", ("train",))], ("circle",))
    write_dataset(circles, root / "circles", "train", "yolo")
    return str(root / "voc"), str(root / "circles")


def test_datasets_of_different_formats_are_read_together(folders: tuple[str, str]) -> None:
    notices: list[str] = []
    mixture = read_mixture(folders, ("train",), notice=notices.append)
    assert len(mixture.samples) == 12 and mixture.labeled[:6].all()
    assert mixture.labeled[6:].sum() == 6 and notices == []
    for first, second in zip(mixture.samples[:6], mixture.samples[6:], strict=True):
        circle = mixture.names.index("circle")
        assert (first.labels == circle).sum() == len(second.labels)
    kept = read_mixture(folders, ("train",), ("circle",), notice=notices.append)
    assert kept.labeled.all() and "treated as background" in notices[0]


def test_mixtures_that_cannot_be_are_named(folders: tuple[str, str], tmp_path: Path) -> None:
    voc, circles = folders
    notices: list[str] = []
    for shares in ((1.0,), (1, 2, 3), (-1, 2), (0, 0), (float("nan"), 1)):
        with pytest.raises(ConfigError, match=r"shares: expected 2 numbers of 0 or more, one for each dataset, got"):
            read_mixture(folders, ("train",), shares=shares, notice=notices.append)
    with pytest.raises(ConfigError, match=r"expected each dataset and split once, got .*voc \(train\) twice"):
        read_mixture([voc, f"{voc}/../voc=val,train"], ("train",), notice=notices.append)
    with pytest.raises(
        CenterdetError, match=r"a dataset has none of the classes \['star'\]; its classes are \['circle'"
    ):
        read_mixture([voc, circles], ("train",), ("star",), notice=notices.append)
    assert notices == []


def test_doubtful_mixtures_are_noticed(folders: tuple[str, str], tmp_path: Path) -> None:
    voc, _ = folders
    names = {"none": "Dog", "alike": "Circle"}
    for stem, name in names.items():
        sample = Sample(
            read_dataset(voc, ("val",)).samples[0].path, np.asarray([[1.0, 1, 9, 9]]), np.zeros(1, np.int64)
        )
        write_dataset(Dataset([sample], (name,)), tmp_path / stem, "train", "yolo")
    notices: list[str] = []
    read_mixture([voc, str(tmp_path / "none")], ("train",), notice=notices.append)
    assert notices[-1].endswith("none: shares no class with the other datasets: ['Dog']")
    notices.clear()
    read_mixture([voc, str(tmp_path / "alike")], ("train",), notice=notices.append)
    assert "names: 'circle' and 'Circle' are two classes; rename one if they are meant to be the same" in notices


def test_the_automatic_preset_counts_the_images(folders: tuple[str, str]) -> None:
    assert choose_preset([folders[0]], ("train",)) == "small"
    assert set(PRESETS) == {"small", "medium", "large"}


def test_options_of_readers_reach_the_datasets(tmp_path: Path) -> None:
    write_shapes(tmp_path / "voc", train=3, val=1, size=64)
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        with Image.open(path) as opened:
            opened.resize((2 * opened.width, 2 * opened.height)).save(path)
    train = tmp_path / "voc" / "ImageSets" / "Main" / "train.txt"
    train.write_text(train.read_text() * 2)  # repeated sampling
    notices: list[str] = []
    with pytest.raises(DataError, match=r"pass rescale \(--rescale\)"):
        read_mixture([str(tmp_path / "voc")], ("train",), notice=notices.append)
    options = ReadOptions(rescale=True)
    mixture = read_mixture([str(tmp_path / "voc")], ("train",), notice=notices.append, options=options)
    assert len(mixture.samples) == 6 and all(sample.size == read_size(sample.path) for sample in mixture.samples)
    assert choose_preset([str(tmp_path / "voc")], ("train",), options) == "small"
