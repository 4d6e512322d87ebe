"""Data sets: samples, readers and writers of their formats, augmentation, loading."""
