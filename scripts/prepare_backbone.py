"""Turn ImageNet weights into one safetensors file: python scripts/prepare_backbone.py efficientnet_lite0 OUT

The file serves as `--backbone-weights` on a machine that has neither the package with the weights nor a network. With
`--download`, torchvision's hash-checked loader may fetch weights that are not on this machine.
"""

from pathlib import Path

import typer
from safetensors.torch import save

from centerdet.files import write_atomic
from centerdet.models import build_backbone


def main(backbone: str, out: Path, download: bool = False) -> None:
    """Write the stages' tensors under this package's names."""
    built, report = build_backbone(backbone, "download" if download else "imagenet")
    write_atomic(out, save({key: value.contiguous() for key, value in built.state_dict().items()}))
    if report is not None:
        print(f"{len(report.loaded)} loaded, missing {list(report.missing)}, unexpected {list(report.unexpected)}")
    print(out)


if __name__ == "__main__":
    typer.run(main)
