"""An evaluation as one HTML file, and the same numbers as JSON."""

__all__: list[str] = []
