"""Mutants of the evaluators: one operator, comparison or constant changed. The tests must catch nearly all of them.

Mutants come from the syntax tree, so no rename breaks them. Some change nothing but speed (the size of a chunk), so a
few may survive; the survivors are printed.
"""

import ast
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

resource = pytest.importorskip("resource")
ROOT = Path(__file__).parents[1]
MODULES = ("arrays", "coco", "coco_curves", "coco_matching", "order", "overlaps", "voc")
TESTS = ("test_metrics_arrays.py", "test_metrics_voc.py", "test_metrics_coco.py", "test_cocoeval.py")
SEARCH = "import test_metrics_voc as v, test_metrics_coco as c; v.search(range(1000)); c.search(range(1000))"
SAMPLE, SEED, CAUGHT = 60, 0, 0.9

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip


def places(tree: ast.Module) -> list[ast.AST]:
    """The nodes that a mutant may change, those of the bodies of functions."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = [node for body in bodies for statement in body for node in ast.walk(statement)]
    negated = {id(node.operand) for node in nodes if isinstance(node, ast.UnaryOp)}  # -2 often means the same as -1
    return [
        node
        for node in nodes
        if (isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS)
        or (isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS)
        or (isinstance(node, ast.Constant) and type(node.value) in (int, float) and id(node) not in negated)
        or isinstance(node, ast.UnaryOp)
    ]


def mutate(source: str, number: int) -> tuple[str, str]:
    """The module with one of its `places` changed, and a description of the change."""
    tree = ast.parse(source)
    node: Any = places(tree)[number]
    before = ast.unparse(node)
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.Constant):
        node.value += 1
    elif isinstance(node, ast.UnaryOp):
        node.operand = ast.UnaryOp(node.op, node.operand)  # twice is not at all
    else:
        node.op = SWAPS[type(node.op)]()
    return ast.unparse(tree), f"line {node.lineno}: {before} -> {ast.unparse(node)}"


def is_caught(folder: Path) -> bool:
    """Whether the tests of the package in a folder fail: the cases by hand, or else the search."""
    paths = f"{folder}{os.pathsep}{folder / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    chosen = ["-m", "not soak", "-k", "not search and not tensors", *TESTS]
    by_hand = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *chosen]
    for call in (by_hand, ["-c", SEARCH]):
        command = [sys.executable, *call]
        done = subprocess.run(
            command, cwd=folder / "tests", env=environment, capture_output=True, check=False, preexec_fn=limit
        )
        if done.returncode:
            return True
    return False


def limit() -> None:
    """An endless loop, or one that allocates, is an error: 4 GiB, and 100 s of CPU time, four times what is needed."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (100, 100))


def copy_to(folder: Path) -> Path:
    """The package and the tests of its evaluators, to be mutated."""
    shutil.copytree(ROOT / "centerdet", folder / "centerdet", ignore=shutil.ignore_patterns("__pycache__", "*.html"))
    (folder / "tests").mkdir()
    for file in ("conftest.py", "reference_metrics.py", "metric_problems.py", "coco_problems.py", *TESTS):
        shutil.copy(ROOT / "tests" / file, folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.soak
def test_the_right_code_passes(tmp_path: Path) -> None:
    assert not is_caught(copy_to(tmp_path / "copy"))


@pytest.mark.soak
def test_nearly_all_mutants_are_caught(tmp_path: Path) -> None:
    sources = {name: (ROOT / "centerdet" / "metrics" / f"{name}.py").read_text() for name in MODULES}
    everywhere = [(name, number) for name, text in sources.items() for number in range(len(places(ast.parse(text))))]
    chosen = random.Random(SEED).sample(everywhere, SAMPLE)

    def survivor(name: str, number: int) -> str:
        """The change of a mutant that no test catches, or an empty string."""
        folder = copy_to(tmp_path / f"{name}-{number}")
        mutant, change = mutate(sources[name], number)
        (folder / "centerdet" / "metrics" / f"{name}.py").write_text(mutant)
        return "" if is_caught(folder) else f"{name}.py, {change}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        survivors = sorted(filter(None, pool.map(lambda one: survivor(*one), chosen)))
    print(f"{len(survivors)} of {SAMPLE} mutants survive:", *survivors, sep="\n")
    assert len(survivors) <= (1 - CAUGHT) * SAMPLE, survivors


def test_a_mutant_differs_in_one_place() -> None:
    source = "def f(a, b=1):\n    return ~a if a < b + 2 else -1\n"
    changes = [mutate(source, number)[1] for number in range(len(places(ast.parse(source))))]
    assert sorted(changes) == [
        "line 2: -1 -> --1", "line 2: 2 -> 3",
        "line 2: a < b + 2 -> a <= b + 2", "line 2: b + 2 -> b - 2", "line 2: ~a -> ~~a",
    ]  # fmt: skip
