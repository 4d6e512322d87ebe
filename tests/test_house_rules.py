"""The habits of ARCHITECTURE.md and CONTRIBUTING.md that a machine can check."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import centerdet

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "centerdet").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
MODULES = ["centerdet", *sorted(found.name for found in pkgutil.walk_packages(centerdet.__path__, "centerdet."))]
MODULES.remove("centerdet.__main__")

LONG = {
    "scripts/benchmark_evaluation.py": "two ways of input, and every peer in a process of its own",
    "scripts/fuzz.py": "a generator and a mutator for each of the readers",
}
"""Files beyond 300 lines, and scripts beyond 120, each with its reason."""

FOLDERS = (".ci", "centerdet", "docs", "scripts", "tests", "weights")
TEXTS = sorted(
    path
    for path in [*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    if path.is_file()
    and path.suffix in {"", ".md", ".py", ".toml", ".yml", ".yaml", ".txt", ".svg"}
    and not path.name.startswith(".coverage")  # data that coverage leaves
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parse(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def nodes(paths: list[Path]) -> Iterator[tuple[str, str, ast.AST]]:
    """(file, file:line, node) of everything in the files."""
    for path in paths:
        file = name(path)
        for node in parse(path):
            yield file, f"{file}:{getattr(node, 'lineno', 0)}", node


@cache
def called(node: ast.AST) -> str:
    """What a call calls, as written: `print`, `cv2.imread`; else an empty string."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def run_python(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_exports_are_sorted_and_exist(module: str) -> None:
    found = importlib.import_module(module)
    exported = found.__all__
    # The linter's order: CONSTANTS, Classes, then functions, each by name.
    assert exported == sorted(set(exported), key=lambda word: (not word.isupper(), not word[0].isupper(), word))
    assert [word for word in exported if not hasattr(found, word)] == []


def test_public_names_of_the_package_are_listed_and_lead_somewhere() -> None:
    assert set(centerdet.__all__) <= set(dir(centerdet))
    with pytest.raises(AttributeError, match="no attribute 'Detectro'"):
        centerdet.Detectro  # noqa: B018


def test_long_files_argue_for_themselves() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE + SCRIPTS}
    long = {file for file, length in lengths.items() if length > (120 if file.startswith("scripts/") else 300)}
    assert long - set(LONG) == set()
    assert set(LONG) - long == set(), "no longer long: take them off the list"


def test_nothing_prints_but_the_consoles_of_the_commands() -> None:
    assert [at for _, at, node in nodes(PACKAGE) if called(node) == "print"] == []


def test_the_consoles_print_text_as_it_is() -> None:
    """Rich's `print` takes `[/data]` in a path for markup and wraps lines: `out` does neither, but prints no tables."""
    printed = [
        ast.unparse(node)
        for _, _, node in nodes(PACKAGE)
        if isinstance(node, ast.Call) and re.fullmatch(r"(console|errors)\.print", called(node))
    ]
    assert printed == ["console.print(table, markup=False)"]


def test_only_images_opens_images() -> None:
    doors = re.compile(r"(.*\.)?(imread|imreadmulti|imdecode|read_image|decode_image|decode_jpeg)|(PIL\.)?Image\.open")
    found = [
        at for file, at, node in nodes(PACKAGE + SCRIPTS) if doors.fullmatch(called(node)) and "images.py" not in file
    ]
    assert found == []


def test_no_bare_except_and_no_assert() -> None:
    everything = list(nodes(PACKAGE + SCRIPTS))
    assert [at for _, at, node in everything if isinstance(node, ast.ExceptHandler) and node.type is None] == []
    assert [at for _, at, node in everything if isinstance(node, ast.Assert)] == []


def test_nothing_is_unpickled() -> None:
    banned = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for file, at, node in nodes(PACKAGE + SCRIPTS):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {(node.module or "") if isinstance(node, ast.ImportFrom) else alias.name for alias in node.names}
            assert not {module.partition(".")[0] for module in modules} & banned, at
        if isinstance(node, ast.Call):
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            assert options.get("allow_pickle", "False") == "False", at
            if called(node) == "torch.load":
                assert (file, options.get("weights_only")) == ("centerdet/models/backbones.py", "True"), at


def test_importing_only_defines() -> None:
    """No module of the package changes the environment, logging, or a library's global switches when imported."""
    switches = re.compile(
        r"os\.(putenv|environ\.\w+)|logging\.(basicConfig|.*setLevel)|warnings\.(filterwarnings|simplefilter)"
        r"|torch\.(set_|manual_seed|use_)\w*|(np|numpy)\.random\.seed|random\.seed|cv2\.setNumThreads"
    )
    found = []
    for path in PACKAGE:
        waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            waiting += ast.iter_child_nodes(node)
            stores = isinstance(node, ast.Assign) and any("os.environ" in ast.unparse(goal) for goal in node.targets)
            if stores or switches.fullmatch(called(node)):
                found.append(f"{name(path)}: {ast.unparse(node)}")
    allowed = r"centerdet/training/augment\.py: os\.environ.*NO_ALBUMENTATIONS_UPDATE.*"
    assert [text for text in found if not re.fullmatch(allowed, text)] == []


def test_names_are_spelled_out() -> None:
    banned = {"base", "common", "core", "helper", "helpers", "lib", "manager", "meta", "misc", "tools", "util", "utils"}
    assert [name(path) for path in PACKAGE + SCRIPTS if path.stem in banned or path.parent.name in banned] == []
    short = {"helper", "hm", "ind", "manager", "meta", "misc", "reg", "wh"}
    for _, at, node in nodes(PACKAGE + SCRIPTS):
        words = {getattr(node, field, None) for field in ("arg", "name")}
        words |= {node.id} if isinstance(node, ast.Name) else set()
        assert not words & short, at


WORDS = {  # what stands in no name, message, comment or page, and what stands there instead
    r"pictures?": "image",
    r"(?-i:DataSets?)|data sets?": "dataset",
    r"colour\w*": "color",
    r"grey\w*": "gray",
    r"cent(?:re[ds]?|ring)": "center",
    r"(?:behavi|fav|hon|neighb)our\w*": "behavior, favor, honor, neighbor",
    r"(?:cancel|equal|label|model|signal|travel)l(?:ed|ing)": "canceled, labeled, ...",
    r"(?:general|initial|maxim|minim|\w*normal|optim|organ|parallel|priorit|quant|random|real|recogn|serial|special|summar"
    r"|synchron|util|vector|visual)is(?:e[ds]?|ing|ations?)": "recognize, normalize, ...",
    r"amongst|analyse[ds]?|catalogue|learnt|licence|whilst": "among, analyze, catalog, learned, license, while",
    r"(?<!you )wants?": "expected X, got Y",
    r"said|says?|saying|speaks?|spoken|tell(?:s|ing)?|told": "print, report, return, describe",
    r"held(?![- ]out)|its lot|wish(?:es|ed)?": "the noun that is meant",
    r"not all there|whole or not at all": "incomplete, atomic",
    r"again for more": "(repeatable)",
    r"holds a training|nothing since beats": "already contains a training run, no improvement",
    r"go(?:es|ing)? on|went on": "continue",
    r"look(?:ed|s)? at (?:once|each)": "read",
    r"nobody knows": "unknown",
}
NAMES = {
    "away", "bell", "chance", "claim", "counted", "found", "held", "hit", "lot", "miss", "own", "said", "told",
    "wish",
}  # fmt: skip
"""Names that say nothing: the thing has its own, such as detections, path, offset, kernel."""
ALLOWED = {
    path: {"found"} for path in ("centerdet/cli/predict.py", "centerdet/detector.py", "centerdet/sources/streams.py")
}
"""Where one of them is the thing's name: a `Found` of the stream of sources."""


def find_banned(path: Path) -> list[str]:
    """Every banned word and name in a file, with its place."""
    banned = re.compile("|".join(rf"(?<![a-z])(?:{word})(?![a-z])" for word in WORDS), re.IGNORECASE)
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    places = [f"{name(path)}:{number}: {match[0]}" for number, line in lines for match in banned.finditer(line)]
    for _, at, node in nodes([path] if path.suffix == ".py" else []):
        kinds = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.FunctionDef: "name", ast.ClassDef: "name"}
        word = getattr(node, kinds.get(type(node), ""), "")
        if word in NAMES - ALLOWED.get(name(path), set()) and not isinstance(getattr(node, "ctx", None), ast.Load):
            places.append(f"{at}: {word}")
    return places


@pytest.mark.parametrize("path", [*PACKAGE, *SCRIPTS, *(path for path in TEXTS if path.suffix == ".md")], ids=name)
def test_words_are_those_of_the_field(path: Path) -> None:
    assert find_banned(path) == []


def test_the_repository_speaks_of_itself_alone() -> None:
    # Pieces, so that this file does not hold the words it looks for.
    paths = ["/" + word for word in ("home/", "root/", "tmp/", "work/")]
    hosts = ["pypi" + ".org", "python" + "hosted", "download." + "pytorch", "conda" + ".org", "hugging" + "face.co"]
    words = [r"\bissue #?\d", r"\bthe " + r"lead\b", r"\bas an " + r"AI\b", r"\bsub-?" + r"agent"]
    rules = re.compile("|".join([*map(re.escape, paths + hosts), *words]), re.IGNORECASE)
    found = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if rules.search(line)
    ]
    assert found == []


def test_importing_the_package_is_cheap() -> None:
    heavy = "{'PIL', 'albumentations', 'cv2', 'matplotlib', 'pandas', 'torch', 'torchvision'}"
    run_python(f"import sys, centerdet; assert not {heavy} & set(sys.modules)")
    run_python(f"import sys, centerdet.metrics; assert not {heavy} & set(sys.modules)")
    run_python(
        "import sys, centerdet.detector, centerdet.evaluation.evaluation, centerdet.cli\n"
        "assert not {'albumentations', 'matplotlib', 'pandas', 'torch', 'torchvision'} & set(sys.modules)"
    )


@pytest.mark.soak
def test_importing_everything_reaches_no_network() -> None:
    run_python(
        "import importlib, os, sys\n"
        "def stop(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'):\n"
        "        os.write(2, f'{event} {arguments}'.encode())\n"
        "        os._exit(9)\n"
        "sys.addaudithook(stop)\n"
        f"for module in {MODULES}: importlib.import_module(module)\n"
    )
