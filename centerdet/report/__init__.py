"""The HTML report of an evaluation, in one file, and the same numbers as JSON."""

__all__: list[str] = []
