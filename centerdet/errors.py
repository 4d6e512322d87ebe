"""The exceptions of the package: each says what was wrong, where, and what was expected.

Every one is a `CenterdetError` and also the builtin that fits, so callers may catch either.
"""

__all__ = ["AnnotationError", "CenterdetError", "ConfigError", "DataError", "ImageError", "WeightsError"]


class CenterdetError(Exception):
    """Parent of every error that this package raises on purpose."""


class ImageError(CenterdetError, ValueError):
    """A image that is missing, broken, too large, or of an unusable shape or type."""


class AnnotationError(CenterdetError, ValueError):
    """An annotation file or record that is broken or contradicts itself."""


class DataError(CenterdetError, ValueError):
    """A dataset whose parts do not fit together: splits, names, folders."""


class WeightsError(CenterdetError, ValueError):
    """A weights file that is missing, broken, unsafe, or made for something else."""


class ConfigError(CenterdetError, ValueError):
    """An option that does not exist or a value that it cannot take."""
