"""The site of documentation: built strictly, without the network; its code blocks and the README's run; links lead on.

The blocks of a page run one after another, as a reader would go through it, in a folder where the tutorial was done.
Those that cannot run say why: by their command in NOT_RUN, or in a comment before the block, <!-- not run: reason -->.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import skimage
from typer.testing import CliRunner

import centerdet
import centerdet.metrics
from centerdet.cli import app
from centerdet.data.formats import read_dataset
from centerdet.data.sample import Dataset, Sample
from centerdet.data.shapes import draw_scene
from centerdet.data.voc import VOC_NAMES, write_voc

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"

NOT_RUN = {
    "make": "makes an environment of its own",
    "pip": "needs the package index",
    "tensorboard": "serves until it is stopped",
}
SHORTER = {  # what the fast tests run in the place of what is on a page; shell trainings also get SHORT
    "--backbone vgg16": "--backbone resnet18",
    "bench voc.onnx voc_int8.onnx --threads 1 --runs 5": "bench voc.onnx --threads 1 --runs 1",
    "train=200, val=100": "train=12, val=4",
    "epochs=30": "epochs=1, batch=4, sizes=(64,)",
    "range(30)": "range(1)",
}
SHORT = ("--epochs", "1", "--batch", "4", "--sizes", "64")


def read_blocks(page: Path) -> Iterator[tuple[int, str, str]]:
    """(line, language, text) of the blocks that are to run."""
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"(<!-- not run: \S.* -->\n)?^```(.*)\n((?s:.*?))^```$", text, re.MULTILINE):
        assert block[2] in ("", "python", "sh"), f"{page.name}: a block of {block[2]}"
        if block[2] and not block[1]:
            yield text[: block.start(3)].count("\n"), block[2], block[3]


def run_page(page: Path, *, short: bool) -> dict[str, object]:
    """Run the blocks of a page in the current folder; return the variables of its Python."""
    names: dict[str, object] = {"__name__": page.stem}
    for line, language, text in read_blocks(page):
        for long, shorter in SHORTER.items() if short else ():
            text = text.replace(long, shorter)
        if language == "python":
            exec(compile("\n" * line + text, str(page), "exec"), names)
            continue
        for command in text.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(command, comments=True) or [""]
            if not program or program in NOT_RUN:
                continue
            assert program == "centerdet", f"{page.name}: {command!r} is neither run nor in NOT_RUN"
            result = CliRunner().invoke(app, words + list(SHORT if short and words[0] == "train" else ()))
            assert result.exit_code == 0, f"{page.name}: {command}\n{result.output}\n{result.exception}"
    return names


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of someone who has done the tutorial and has some images and a devkit beside it."""
    folder = tmp_path_factory.mktemp("reader")
    for source, name in {"astronaut": "street", "chelsea": "park"}.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), cv2.imread(str(PHOTOGRAPHS / f"{source}.png")))
    (folder / "photos").mkdir()
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (96, 96))
    for number in range(2):
        scene = draw_scene(np.random.default_rng(number), 96)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), scene.image)
        clip.write(cv2.resize(scene.image, (96, 96)))
    clip.release()
    cat = Sample(PHOTOGRAPHS / "chelsea.png", np.array([[0.0, 0, 451, 300]]), np.array([VOC_NAMES.index("cat")]))
    write_voc(Dataset([cat], VOC_NAMES), folder / "VOCdevkit" / "VOC2007", "val")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(TUTORIAL, short=True)
    return folder


SLOW = ("evaluate", "export", "predict", "train")  # pages whose blocks take longer than a few seconds


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.soak] * (page.stem in SLOW))
        for page in PAGES
        if page != TUTORIAL
    ],
)
def test_blocks_run(page: Path, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(reader, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_page(page, short=True)


@pytest.mark.soak
def test_tutorial_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(TUTORIAL, short=False)
    detector = centerdet.Detector.load("runs/first/best.safetensors")
    assert centerdet.evaluate(detector, read_dataset("mydata", ["val"])).voc.mean_ap > 0.93


def test_replaced_texts_are_on_the_pages() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [long for long in SHORTER if long not in text] == []


class Page(HTMLParser):
    """What a page loads, where its links lead, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        else:
            self.loads += [found[key] for key in ("src", "srcset", "href", "data", "poster") if key in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The built pages, by their path; a warning of the builder or of a docstring's reader is an error."""
    pytest.importorskip("zensical", reason="the site is built on Python >= 3.11")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copytree(ROOT / "centerdet", folder / "centerdet", ignore=shutil.ignore_patterns("__pycache__"))
    command = (sys.executable, "-m", "zensical", "build", "--strict")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0 and not re.search(r"(?i)warning|griffe|mkdocstrings", output), output
    return {path: Page(path) for path in (folder / "site").rglob("*.html")}


def test_site_has_every_page_and_public_name(site: dict[Path, Page]) -> None:
    built = {path.stem: page for path, page in site.items()}
    assert built.keys() - {"404"} == {page.stem for page in PAGES} - {"README"}
    listed = set(re.findall(r'"(\w+)\.md"', (ROOT / "zensical.toml").read_text()))
    assert listed == built.keys() - {"404"}
    names = {f"centerdet.{name}" for name in centerdet.__all__} - {"centerdet.__version__"}
    names |= {f"centerdet.metrics.{name}" for name in centerdet.metrics.__all__}
    assert names <= built["reference"].anchors


def test_site_loads_nothing_from_the_network(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        assert [link for link in page.loads if re.match(r"(\w+:)?//", link)] == [], path
        # for these the theme's script would fetch others
        assert not re.search(r'class="[^"]*\b(glightbox|mermaid|pyodide)\b', path.read_text(encoding="utf-8")), path
    styles = [sheet for path in {path.parents[0] for path in site} for sheet in path.rglob("*.css")]
    assert styles
    for sheet in styles:
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_links_of_the_site_lead_somewhere(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for link in (*page.links, *page.loads):
            file, _, anchor = unquote(link).partition("#")
            if re.match(r"https://[\w.-]+/|data:", link) or path.stem == "404":
                continue
            goal = (path.parent / file.split("?")[0]).resolve() if file else path
            assert goal.exists(), f"{path.name}: {link}"
            assert goal not in site or anchor in site[goal].anchors, f"{path.name}: {link}"


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link.partition("#")[0]).exists()] == []


def test_promises_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+\.py|conftest\.py)(?:::(test_\w+))?`( \(soak\))?", text))
    assert len(named) > 20
    for file, test, soak in named:
        code = (ROOT / "tests" / file).read_text(encoding="utf-8")
        match = re.search(rf"((?:^[^\n]+\n)*)^def {test}\(", code, re.MULTILINE) if test else re.search("()", code)
        assert match, f"{file}::{test}"
        whole_file = re.search(r"^pytestmark = \[\n    pytest\.mark\.soak,$", code, re.MULTILINE)
        marked = whole_file or re.search(r"^(@pytest\.mark\.soak|@soak)$", match[1], re.MULTILINE)
        assert not test or bool(soak) == bool(marked), test
