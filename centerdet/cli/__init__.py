"""The command line: `centerdet train | evaluate | predict | export | bench | serve | check | ...`.

Exit codes: 0 success, 1 failure (reported on stderr), 2 wrong usage, 130 stopped by Ctrl-C. Commands import slow
modules when they run, so `centerdet --help` and shell completion do not need torch.
"""

import inspect
import re
import sys
from typing import Annotated

import typer

from .. import __version__
from ..errors import CenterdetError
from .bench import bench
from .calibrate import calibrate
from .data import check, convert, download, pack, split
from .evaluate import evaluate
from .export import export
from .predict import predict
from .serve import serve
from .show import console, errors, escape_unencodable
from .train import train

__all__ = ["app", "main"]

app = typer.Typer(
    name="centerdet",
    help="One-stage, anchor-free object detection.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _command in (train, evaluate, calibrate, predict, export, bench, serve, check, convert, split, pack, download):
    # Each paragraph of the docstring on one line, which the terminal wraps.
    app.command(help=re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(_command) or ""))(_command)


def _print_version(asked: bool) -> None:
    if asked:
        console.out(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main() -> None:
    """The `centerdet` program."""
    escape_unencodable()
    try:
        app(prog_name="centerdet")
    except (CenterdetError, OSError) as error:
        errors.out(f"error: {error}")
        sys.exit(1)
