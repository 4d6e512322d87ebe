"""The command line: `centerdet train | evaluate | predict | check | convert | split | download`.

Exit codes: 0 done, 1 failed (with what, where and why on stderr), 2 wrong usage. Options of `train` are made from the
fields of `TrainConfig`.
"""

import os
import platform
import sys

import typer

from ..errors import CenterdetError
from .data import check, convert, download, split
from .evaluate import evaluate
from .predict import predict
from .show import errors
from .train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="centerdet",
    help="One-stage, anchor-free object detection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (train, evaluate, predict, check, convert, split, download):
    app.command()(command)

# glibc's malloc gives large blocks back and asks for them anew in every training step, and each page is then zeroed
# again; told before the program starts to keep them, a step takes about a tenth less.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(32 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def main() -> None:
    """The `centerdet` program."""
    if sys.argv[1:2] == ["train"] and platform.libc_ver()[0] == "glibc" and not MALLOC.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, "-m", "centerdet", *sys.argv[1:]], {**os.environ, **MALLOC})
    try:
        app()
    except CenterdetError as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
