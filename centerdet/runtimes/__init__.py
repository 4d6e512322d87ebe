"""Runtimes: what loads a weights file and runs its network, behind one small protocol."""

__all__: list[str] = []
