"""What a user installs: the built wheel in an empty environment, without the clone and without a network."""

import json
import os
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import skimage
import yaml

import centerdet
from centerdet.runtimes.weights import SHIPPED

WEIGHTS = {f"centerdet/weights/{file}" for file in SHIPPED.values()}
CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"

PREDICT = """
import json, os, sys

def stop(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        os.write(2, f"{event} {arguments}".encode())
        os._exit(9)

sys.addaudithook(stop)
import centerdet
detections = centerdet.Detector.load("voc").predict(sys.argv[1])
arrays = {name: getattr(detections, name).tolist() for name in ("boxes", "scores", "labels")}
print(json.dumps({"home": centerdet.__file__, "version": centerdet.__version__, "names": detections.names, **arrays}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--wheel", "--sdist", "--no-isolation", "--outdir", folder, repo_root)
    run(*command, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel alone, and sees this one's packages but not the clone installed in it.

    Only the folders named by an environment's own .pth files are searched; the .pth files inside those folders, through
    which an editable install points to its clone, are not followed.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    python = next(folder.glob("bin/python")) if os.name != "nt" else folder / "Scripts" / "python.exe"
    [wheel] = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(*pip, cwd=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(packages, "borrowed.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    return python.parent


def test_wheel_holds_the_package_and_its_weights(built: Path) -> None:
    [path] = built.glob("*.whl")
    assert path.name == f"centerdet-{centerdet.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA")).removesuffix("METADATA")
    assert {name.partition("/")[0] for name in names} == {"centerdet", info.rstrip("/")}
    assert names >= {*WEIGHTS, "centerdet/weights/NOTICE", "centerdet/py.typed", f"{info}licenses/LICENSE"}
    assert {Path(name).name for name in names if "/weights/" in name} == set(
        os.listdir(Path(__file__).parents[1] / "weights")
    )
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pth", ".pyc"))]
    assert path.stat().st_size < 14e6


def test_sdist_holds_what_the_clone_does_and_nothing_else(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {"centerdet", "docs", "scripts", "tests", "weights"}
    files = {".gitignore", "CITATION.cff", "LICENSE", "Makefile", "PKG-INFO", "pyproject.toml", "zensical.toml"}
    assert {top for name in names if (top := name.partition("/")[0]) and not top.endswith(".md")} <= folders | files
    assert names >= {"pyproject.toml", "centerdet/py.typed", "tests/test_wheel.py", "weights/NOTICE", "LICENSE"}


def test_building_again_gives_the_same_bytes(built: Path, repo_root: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, repo_root)
    run(*command, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.read_bytes() == (built / wheel.name).read_bytes()


def test_version_is_cited(repo_root: Path) -> None:
    citation = yaml.safe_load((repo_root / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (centerdet.__version__, "Apache-2.0")
    changes = (repo_root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {citation['version']} ({citation['date-released']})" in changes


@pytest.mark.soak
def test_installed_wheel_predicts_without_clone_and_network(environment: Path, tmp_path: Path) -> None:
    shown = json.loads(run(environment / "python", "-I", "-c", PREDICT, CAT, cwd=tmp_path))
    assert Path(shown["home"]).is_relative_to(environment.parent)
    assert shown["version"] == centerdet.__version__
    assert shown["names"][shown["labels"][0]] == "cat"
    assert shown["scores"][0] > 0.5
    here = centerdet.Detector.load("voc").predict(CAT)
    assert shown["boxes"] == here.boxes.tolist()


@pytest.mark.soak
def test_installed_command_runs(environment: Path, tmp_path: Path) -> None:
    assert "predict" in run(environment / "centerdet", "--help", cwd=tmp_path)
    assert f"{CAT}: cat" in run(environment / "centerdet", "predict", "voc", CAT, "--out", "out", cwd=tmp_path)
    assert list((tmp_path / "out").iterdir())
