"""Datasets: samples, readers and writers of their formats, augmentation, loading."""

__all__: list[str] = []
