"""Evaluation of a detector, or of any program's detections, on a dataset."""

__all__: list[str] = []
