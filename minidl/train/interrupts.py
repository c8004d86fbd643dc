"""Ctrl-C between two steps: a signal that comes while parameters are being changed waits until they all are."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupts:
    """While it is entered, the first Ctrl-C only sets `asked`, and check() raises KeyboardInterrupt; a second one raises at once.

    Only the main thread of a program that has not set a handler of its own is changed. `between` says whether nothing is half done.
    """

    def __init__(self) -> None:
        self.asked = False
        self.between = True
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _handle(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if one was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """What must not be left half done."""
        self.between = False
        yield
        self.between = True
