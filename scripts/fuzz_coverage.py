"""Damage a reader's files where that reaches new code: python scripts/fuzz_coverage.py READER --cases 20000

Needs atheris. The examples, the changes, and the rules are those of fuzz.py; libFuzzer keeps what executes new branches
of centerdet, and changes it further. The first finding ends the run: it is printed, its content is kept in --out, and
the exit code is not 0.
"""

import sys
import tempfile
import zlib
from pathlib import Path
from random import Random
from typing import Annotated

import atheris
import typer

with atheris.instrument_imports(include=["centerdet"]):
    import fuzz


class FindingError(Exception):
    """What must not happen."""


def main(
    reader: Annotated[str, typer.Argument(help=f"one of {', '.join(fuzz.READERS)}")],
    cases: Annotated[int, typer.Option(min=1)] = 1000,
    seed: Annotated[int, typer.Option(min=1)] = 1,
    out: Annotated[Path, typer.Option(help="folder for the content of a finding")] = Path("fuzz"),
) -> None:
    """Run the cases of one reader."""
    out.mkdir(parents=True, exist_ok=True)
    with fuzz.Example(reader) as example, tempfile.TemporaryDirectory() as corpus:
        for number, path in enumerate(example.targets):
            Path(corpus, f"{number}").write_bytes(example.files[path])

        def read(content: bytes) -> None:
            path = example.targets[zlib.crc32(content) % len(example.targets)]
            _, finding = example.read(path, content)
            if finding:
                raise FindingError(f"{reader}: {finding}")

        def change(content: bytes, most: int, seed: int) -> bytes:
            return example.damage(content, Random(seed))[:most]

        most = 4 * max(len(example.files[path]) for path in example.targets)
        options = {
            "atheris_runs": cases, "seed": seed, "max_len": most, "rss_limit_mb": 8192,
            "artifact_prefix": f"{out / reader}-",
        }  # fmt: skip
        words = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup([sys.argv[0], *words, corpus], read, custom_mutator=change)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    typer.run(main)
