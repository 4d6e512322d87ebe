"""Datasets: samples, and readers and writers of their formats."""

__all__: list[str] = []
