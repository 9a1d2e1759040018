# SPDX-License-Identifier: MIT
"""Ctrl-C, held back while something is half-way between two states."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupts:
    """Let Ctrl-C wait while weights or a file are half-way between two states.

    Only in the main thread and where Python's own handler is in place: whoever set another one,
    or ignores the signal, keeps it.
    """

    def __init__(self) -> None:
        self._held = self._pending = self._mine = False

    def __enter__(self) -> Interrupts:
        self._mine = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._mine:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: Any) -> None:
        again, self._pending = self._pending, True
        if again or not self._held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal wait until the end of the block."""
        self._raise_pending()  # Python drops what is raised inside a destructor
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._raise_pending()

    def _raise_pending(self) -> None:
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
