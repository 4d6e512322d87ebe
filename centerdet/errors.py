"""The exceptions of the package: each states what was expected, what came, where, and what to do.

    CenterdetError
    ├── AnnotationError          ValueError
    ├── ConfigError              ValueError
    ├── DataError                ValueError
    │   └── MissingDataError     FileNotFoundError
    ├── ImageError               ValueError
    │   └── MissingImageError    FileNotFoundError
    ├── WeightsError             ValueError
    │   └── MissingWeightsError  FileNotFoundError
    └── WriteError               OSError

Each is also the builtin beside it, so callers may catch either.
"""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "AnnotationError",
    "CenterdetError",
    "ConfigError",
    "DataError",
    "ImageError",
    "MissingDataError",
    "MissingImageError",
    "MissingWeightsError",
    "WeightsError",
    "WriteError",
    "requires",
]


class CenterdetError(Exception):
    """Parent of every error that this package raises on purpose."""


class AnnotationError(CenterdetError, ValueError):
    """An annotation file or record that is broken or contradicts itself."""


class ConfigError(CenterdetError, ValueError):
    """An option that does not exist or a value that it cannot take."""


class DataError(CenterdetError, ValueError):
    """A dataset whose parts do not fit together: splits, names, folders."""


class MissingDataError(DataError, FileNotFoundError):
    """A dataset's folder, annotation file, list or results file that does not exist."""


class ImageError(CenterdetError, ValueError):
    """An image that is broken, too large, or of an unusable shape or type."""


class MissingImageError(ImageError, FileNotFoundError):
    """An image file that does not exist."""


class WeightsError(CenterdetError, ValueError):
    """A weights file that is broken, unsafe, or made for something else."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """A weights file that does not exist."""


class WriteError(CenterdetError, OSError):
    """A file or folder that cannot be written."""


@contextmanager
def requires(requirement: str, what: str) -> Iterator[None]:
    """Import optional packages: for `what` needs one that is missing, a ConfigError names what pip installs."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("centerdet"):
            raise
        raise ConfigError(f"{what} needs {error.name}: pip install '{requirement}'") from None
