"""The report: its numbers, its page as a file, and the page in a browser (Debian's `chromium`, `chromium-driver`)."""

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_sets import NAMES, make_set
from PIL import Image
from typer.testing import CliRunner

from centerdet.cli import app
from centerdet.data.sample import Dataset, Sample
from centerdet.data.voc import write_voc
from centerdet.errors import WriteError
from centerdet.evaluation.evaluation import Evaluation, evaluate_detections
from centerdet.evaluation.files import Results, write_results
from centerdet.report import numbers, page

HOSTILE = (
    "<img src=x onerror=document.title='broken'>",
    "</script><script>document.title='broken'</script>",
    "'\"&{{ 7*7 }}",
)
build_report = partial(numbers.build_report, resamples=50)
SECTIONS = ("false_positives", "misses", "confusions", "suspects")


def sets(folder: Path, names: tuple[str, ...] = NAMES, images: int = 12) -> tuple[Dataset, Evaluation, Evaluation]:
    """A small dataset, and the evaluations of two detectors."""
    folder.mkdir(exist_ok=True)
    dataset, results = make_set(folder, images=images)
    dataset = Dataset(dataset.samples, names)
    worse = replace(results, boxes=results.boxes + 9)
    return dataset, evaluate_detections(results, dataset), evaluate_detections(worse, dataset)


def write_report(folder: Path, result: Evaluation, **options: Any) -> None:
    page.write_report(folder, build_report(result, **options))


class Page(HTMLParser):
    """The elements of a page: (tag, attributes) in their order, the text, and the cards of each section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.cards: Counter[str] = Counter()
        self.text, self.section, self.within = "", "", ""
        self.contents: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.elements.append((tag, found))
        self.within = tag
        self.section = found.get("id", "") if tag == "section" else self.section
        self.cards[self.section] += found.get("class") == "card"

    def handle_data(self, text: str) -> None:
        if self.within in self.contents:
            self.contents[self.within].append(text)
        else:
            self.text += text

    def handle_endtag(self, tag: str) -> None:
        self.within = ""


def read(folder: Path) -> tuple[dict[str, Any], Page]:
    return json.loads((folder / "report.json").read_text()), Page((folder / "report.html").read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_evaluation(tmp_path: Path) -> None:
    _, result, other = sets(tmp_path)
    report = json.loads(json.dumps(build_report(result, against=other), allow_nan=False))
    assert report["mean"]["voc-area"]["value"] == result.voc.mean_ap
    assert [row["objects"] for row in report["classes"]] == result.voc.num_positive.tolist()
    assert [row["voc-area"] for row in report["classes"]] == result.voc.ap.tolist()
    assert report["confusion"]["matrix"] == result.confusion_matrix().matrix.tolist()
    assert report["errors"] == result.error_kinds().to_dict()
    assert report["comparison"]["means"][0]["difference"] == result.compare(other, 50).mean_ap.difference
    for key, part in (
        ("true", result.match.true_positive),
        ("false", ~result.match.true_positive & ~result.match.ignored),
    ):
        assert np.sum(report["scores"][key]) == part.sum()
    for number, curve in enumerate(report["curves"]):
        assert curve["recall"][-1] == pytest.approx(result.voc.curve(number).recall[-1], abs=1e-4)
    assert report["galleries"]["suspects"]["total"] == len(result.suspects())
    assert [item["score"] for item in report["galleries"]["suspects"]["items"]] == [
        pytest.approx(one.score, abs=1e-4) for one in result.suspects()
    ]
    assert set(report["galleries"]) == {*SECTIONS, "lost", "gained"}


def test_every_card_names_what_it_shows(tmp_path: Path) -> None:
    _, result, _ = sets(tmp_path)
    galleries = build_report(result)["galleries"]
    kinds = result.error_kinds()
    threshold = result.operating_points().best_overall.score_threshold
    confident = result.results.scores >= 0.3
    assert galleries["confusions"]["total"] == (confident & (kinds.detection_kind == 0)).sum()
    assert galleries["false_positives"]["total"] == (confident & (kinds.detection_kind >= 1)).sum()
    detected = result.match.true_positive & (result.results.scores >= threshold)
    assert galleries["misses"]["total"] == result.voc.num_positive.sum() - detected.sum()
    for key, gallery in galleries.items():
        assert len(gallery["items"]) == gallery["total"] > 0  # so few that none is cut
        for item in gallery["items"]:
            main = [box for box in item["boxes"] if box["main"]]
            assert main and item["classes"] and Path(item["image"]).exists()
            if key != "suspects":  # where a renamed box has a class of either
                assert {NAMES[label] for label in item["classes"]} <= {box["label"] for box in main}


def test_a_gallery_leaves_room_for_every_class(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "one.png")
    dataset = Dataset([Sample(tmp_path / "one.png")], ("often", "rare"))
    count = 900
    boxes = np.tile([5.0, 5, 25, 25], (count, 1))
    labels = (np.arange(count) >= count - 10).astype(int)  # the rare class has the lowest scores
    result = evaluate_detections(Results(boxes, np.linspace(0.9, 0.5, count), labels, np.zeros(count, int)), dataset)
    gallery = build_report(result)["galleries"]["false_positives"]
    assert (gallery["total"], len(gallery["items"])) == (count, 240)
    assert sum(item["classes"] == [1] for item in gallery["items"]) == 10
    scores = [item["score"] for item in gallery["items"]]
    assert scores == sorted(scores, reverse=True)


def test_the_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    _, result, other = sets(tmp_path / "images")
    write_report(tmp_path / "out", result, detector="first", against=other, second="second")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    report, page = read(tmp_path / "out")
    assert {key: page.cards[key] for key in report["galleries"]} == {
        key: len(gallery["items"]) for key, gallery in report["galleries"].items()
    }
    for tag, found in page.elements:
        assert tag not in ("link", "iframe", "object", "base") and "style" not in found
        assert not [key for key in found if key.startswith("on")]
        assert all(found.get(key, "data:").startswith("data:") for key in ("src", "srcset", "poster"))
        assert found.get("href", "#").startswith("#")
    images = [found for tag, found in page.elements if tag == "img"]
    assert images and all(found["loading"] == "lazy" and found["alt"] and found["width"] for found in images)
    # The policy names this very script and style.
    [policy] = [found["content"] for _, found in page.elements if found.get("http-equiv")]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'" and parts["img-src"] == "data:"
    for key, texts in (("script-src", page.contents["script"][-1:]), ("style-src", page.contents["style"])):
        digest = base64.b64encode(hashlib.sha256("".join(texts).encode()).digest()).decode()
        assert parts[key] == f"'sha256-{digest}'"


def test_hostile_class_names_stay_text(tmp_path: Path) -> None:
    _, result, other = sets(tmp_path / "images", HOSTILE)
    write_report(tmp_path / "out", result, detector=HOSTILE[0], dataset=HOSTILE[1], against=other, second=HOSTILE[2])
    _, page = read(tmp_path / "out")
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert all(found.get("src", "data:").startswith("data:") for _, found in page.elements)
    for name in HOSTILE:
        assert name in page.text
    assert "49" not in page.text.split("'\"&")[1][:12]  # a name is no template
    assert json.loads(page.contents["script"][0])["names"] == list(HOSTILE)


def test_unreadable_images_are_named_on_the_page(tmp_path: Path) -> None:
    _, result, _ = sets(tmp_path / "images")
    whole = build_report(result)
    shown = sorted({item["image"] for gallery in whole["galleries"].values() for item in gallery["items"]})
    Path(shown[0]).unlink()
    Path(shown[1]).write_bytes(b"no image")
    write_report(tmp_path / "out", result)
    report, page = read(tmp_path / "out")
    assert report == json.loads(json.dumps(whole))
    assert "2 images could not be read" in page.text and f"{shown[0]}: no such image" in page.text
    gaps = [item for gallery in whole["galleries"].values() for item in gallery["items"] if item["image"] in shown[:2]]
    assert page.text.count("The image could not be read.") == len(gaps)


def test_nothing_to_report_is_a_page_as_well(tmp_path: Path) -> None:
    missed = Sample(tmp_path / "none.jpg", np.array([[0.0, 0, 9, 9]]), np.array([0]))
    for samples in ([], [Sample(tmp_path / "none.jpg")], [missed]):
        dataset = Dataset(samples, ("cat",))
        empty = evaluate_detections(Results.join([]), dataset)
        write_report(tmp_path / "out", empty, against=empty)
        report, page = read(tmp_path / "out")
        assert report["mean"]["voc-area"]["value"] == (0 if samples == [missed] else None)
        assert not re.search(r"\bnan\b|\bNone\b(?!\.| of this class)", page.text)


def test_scores_that_are_no_probabilities_have_no_calibration(tmp_path: Path) -> None:
    dataset, result, _ = sets(tmp_path / "images")
    logits = replace(result.results, scores=10 * result.results.scores - 5)
    write_report(tmp_path / "out", evaluate_detections(logits, dataset))
    report, page = read(tmp_path / "out")
    assert report["calibration"] is None and "Reliability" not in page.text


def test_only_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    _, result, other = sets(tmp_path / "images")
    write_report(tmp_path / "out", result)
    first = (tmp_path / "out" / "report.json").read_bytes()
    write_report(tmp_path / "out", other)
    assert (tmp_path / "out" / "report.json").read_bytes() != first
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(WriteError, match=r"or an earlier report; got notes\.txt"):
        write_report(tmp_path / "out", result)
    with pytest.raises(WriteError, match="expected a folder, got a file"):
        write_report(tmp_path / "out" / "notes.txt", result)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["notes.txt", "report.html", "report.json"]


def test_the_command_writes_it(tmp_path: Path) -> None:
    dataset, result, other = sets(tmp_path / "images")
    write_voc(dataset, tmp_path / "voc", "val")
    for name, one in (("first", result), ("second", other)):
        write_results(tmp_path / name, one.results, dataset, split="val")
    words = ["evaluate", tmp_path / "first", "--data", tmp_path / "voc", "--split", "val", "--report", tmp_path / "out"]
    done = CliRunner().invoke(app, [*map(str, words), "--against", str(tmp_path / "second")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report, page = read(tmp_path / "out")
    assert report["dataset"] == "voc, val" and report["comparison"] and "voc, val: 12 images" in page.text
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(WriteError, match=r"notes\.txt"):  # before anything is computed
        CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


# In a browser

Opened = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens a report from disk in a window of a size; closed afterwards."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def open_page(folder: Path, width: int = 1200, *, dark: bool = False) -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get((folder / "report.html").as_uri())
        return browser

    yield open_page
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    browser.quit()
    assert complaints == []  # the policy would be named here
    sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert sent and all(re.match(r"data:|file:.*/report\.html$", address) for address in sent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The report of a set with more cards than a gallery shows at first."""
    _, result, other = sets(tmp_path / "images", images=40)
    write_report(tmp_path / "out", result, detector="first", against=other, second="second")
    return tmp_path / "out"


def shown(browser: Any, section: str) -> int:
    return int(browser.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} .card`)].filter(c => c.getClientRects().length).length",
        section,
    ))  # fmt: skip


@pytest.mark.soak
def test_counts_filters_and_sorting(folder: Path, opened: Opened) -> None:
    browser = opened(folder)
    report = json.loads((folder / "report.json").read_text())
    choose = browser.find_element("id", "class")
    for label in ("", *map(str, range(len(NAMES)))):
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", choose, label
        )
        for key, gallery in report["galleries"].items():
            fitting = [item for item in gallery["items"] if not label or int(label) in item["classes"]]
            assert shown(browser, key) == min(24, len(fitting))
            status = browser.find_element("css selector", f"#{key} .status").text
            assert status == (f"Showing {min(24, len(fitting))} of {len(fitting)}." if fitting else "")
            while (more := browser.find_element("css selector", f"#{key} .more")).is_displayed():
                browser.execute_script("arguments[0].click()", more)
            assert shown(browser, key) == len(fitting)
        objects = report["objects"] if not label else report["classes"][int(label)]["objects"]
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('#sizes tbody td:last-child')].map(cell => Number(cell.textContent))"
        )
        assert sum(sizes) == objects
    column = (
        "return [...document.querySelectorAll('#classes tbody tr')].map(row => row.cells[arguments[0]].dataset.value)"
    )
    for number in (1, 2, 0):
        header = browser.find_elements("css selector", "#classes thead button")[number]
        for _ in range(2):
            header.send_keys("\n")  # by the keyboard
            values = [value if number == 0 else float(value) for value in browser.execute_script(column, number)]
            order = browser.find_elements("css selector", "#classes thead th")[number].get_attribute("aria-sort")
            assert values == sorted(values, reverse=order == "descending")
    confusion = browser.execute_script(
        "const rows = [...document.querySelectorAll('.matrix tbody tr')];"
        "return rows.map(row => [...row.cells].slice(1).map(cell => Number(cell.textContent)))"
    )
    assert confusion == report["confusion"]["matrix"]


@pytest.mark.soak
def test_a_class_is_chosen_by_the_keyboard(folder: Path, opened: Opened) -> None:
    browser = opened(folder)
    browser.find_element("css selector", "#classes .pick").send_keys("\n")
    assert browser.find_element("id", "class").get_property("value") == "0"
    assert len(browser.find_elements("css selector", "#precision-recall .dot")) == 1
    slider = browser.find_element("id", "threshold")
    before = browser.find_element("css selector", "#thresholds output").text
    slider.send_keys("\ue012\ue012")  # arrow left
    assert browser.find_element("css selector", "#thresholds output").text != before


@pytest.mark.soak
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_and_the_dark(folder: Path, opened: Opened, dark: bool) -> None:
    browser = opened(folder, 360, dark=dark)
    width, room = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert width == room <= 360
    text, paper = browser.execute_script(
        "const s = getComputedStyle(document.body);"
        "return [s.color, s.backgroundColor].map(c => Math.max(...c.match(/\\d+/g).slice(0, 3).map(Number)))"
    )
    assert (text > paper) == dark and abs(text - paper) > 150
    small = browser.execute_script(
        "return [...document.querySelectorAll('.plot text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(small) > 9  # charts are drawn anew, not shrunk


@pytest.mark.soak
def test_hostile_names_do_nothing_in_a_browser(tmp_path: Path, opened: Opened) -> None:
    _, result, other = sets(tmp_path / "images", HOSTILE)
    write_report(tmp_path / "out", result, detector="first", against=other)
    browser = opened(tmp_path / "out")
    for label in range(3):
        browser.execute_script(
            "const c = document.getElementById('class'); c.value = arguments[0]; c.dispatchEvent(new Event('change'))",
            str(label),
        )
    assert browser.title == "Evaluation of first"
    assert browser.execute_script("return document.querySelectorAll('[src=x], [onerror]').length") == 0
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
