"""Training: options, augmentation, loading, losses, and the loop that joins them."""

__all__: list[str] = []
