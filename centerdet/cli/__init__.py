"""The command line: `centerdet train | evaluate | predict | check | convert | split | download`.

Exit codes: 0 done, 1 failed (with what, where and why on stderr), 2 wrong usage, 130 stopped by Ctrl-C. A command's
module is imported when it is called for, so that `centerdet --help` and the shell's completion are quick.
"""

import inspect
import os
import platform
import re
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import CenterdetError
from .show import console, errors

__all__ = ["app", "main"]

COMMANDS = {
    "train": ("train", "Train a detector on your own images."),
    "evaluate": ("evaluate", "Print AP by both VOC protocols, and what lies behind it."),
    "predict": ("predict", "Find objects in images."),
    "check": ("data", "Say everything that is wrong with a dataset."),
    "convert": ("data", "Write a dataset in another format."),
    "split": ("data", "Take a dataset apart."),
    "download": ("data", "Fetch VOC from its home."),
}
"""For each command the module that holds its function, and its line in the overview."""

# glibc's malloc gives large blocks back and asks for them anew in every training step, and each page is then zeroed
# again; told before the program starts to keep them, a step takes about a tenth less.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(32 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class Commands(TyperGroup):
    """Knows every command by name and line, and loads the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Its name, itself, and the words that are left."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            loaded = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            function = getattr(import_module(f".{COMMANDS[name][0]}", __name__), name)
            paragraphs = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")  # each laid out to the width
            loaded.command(name, help=paragraphs)(function)
            command = typer.main.get_command(loaded)
        return name, command, rest


app = typer.Typer(
    name="centerdet",
    cls=Commands,
    help="One-stage, anchor-free object detection.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _of_all(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None: ...


for _name, (_, _line) in COMMANDS.items():
    app.command(_name, help=_line)(lambda: None)


def main() -> None:
    """The `centerdet` program."""
    if sys.argv[1:2] == ["train"] and platform.libc_ver()[0] == "glibc" and not MALLOC.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, "-m", "centerdet", *sys.argv[1:]], {**os.environ, **MALLOC})
    try:
        app(prog_name="centerdet")
    except (CenterdetError, OSError) as error:
        errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
