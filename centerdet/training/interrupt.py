"""Ctrl-C during training: the first finishes the step and saves a checkpoint, the second stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["Interrupt"]


class Interrupt:
    """A context in which the first Ctrl-C sets `pressed`, so that the step can finish; a second stops at once.

    Active only in the main thread with Python's default handler, where Ctrl-C raises KeyboardInterrupt.
    """

    def __init__(self, notice: Callable[[str], object]) -> None:
        self.pressed = False
        self._notice, self._announced, self._installed = notice, False, False

    def __enter__(self) -> "Interrupt":
        main = threading.current_thread() is threading.main_thread()
        self._installed = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._installed:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def announce(self, *_: object) -> None:
        """Report once that the running validation finishes first."""
        if self.pressed and not self._announced:
            self._announced = True
            self._notice("Ctrl-C: finishing the validation, then saving a checkpoint; press again to stop at once")

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
