"""Ctrl-C and SIGTERM between the steps of a training instead of within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


class Deferral:
    """While it is entered, in the main thread, SIGINT and SIGTERM wait for `check`.

    The handlers that were there before, as far as they are Python's, then do what they do:
    Ctrl-C raises KeyboardInterrupt. A second signal does not wait, for the first one may be
    waiting for something that hangs. Other threads never see a signal, there it does nothing.

    Attributes
    ----------
    pending : the signal that waits, or None.
    safe : whether `check` or `at_once` has let a handler raise.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.safe = False
        self._at_once = False
        self._handlers: dict[int, Handler] = {}
        self._replaced: dict[int, Handler] = {}

    def __enter__(self) -> Deferral:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                present = signal.getsignal(number)
                if callable(present):
                    # In a callback that trains: not the outer deferral, but what it has replaced.
                    outer = getattr(present, "__self__", None)
                    first = outer._handlers[number] if isinstance(outer, Deferral) else present
                    self._handlers[number], self._replaced[number] = first, present
                    signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._at_once:
            self._call(number, frame)
        elif self.pending is None and not self.safe:
            self.pending = number
        else:
            self._handlers[number](number, frame)

    def _call(self, number: int, frame: FrameType | None = None) -> None:
        self.safe = True
        self._handlers[number](number, frame)
        self.safe = False

    def check(self) -> None:
        """Let the signal that waits do what it does."""
        if self.pending is not None:
            number, self.pending = self.pending, None
            self._call(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let signals through, for work that can be thrown away."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False
