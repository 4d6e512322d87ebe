"""Inspection of a dataset before training: problems, the ceiling of the output grid, augmented images."""

__all__: list[str] = []
