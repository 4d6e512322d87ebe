"""Inspection of a dataset before training: what is wrong, what the output grid allows, what training sees."""

__all__: list[str] = []
