"""Ctrl-C and SIGTERM as exceptions of the main thread, none of which gets lost."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is taken as Ctrl-C is: whoever saves at the one saves at the other."""


_EXCEPTIONS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
# What a process has been sent is a fact about the process, as its handlers are: hence not an argument.
_received: list[type[KeyboardInterrupt]] = []


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Within this context, SIGINT raises `KeyboardInterrupt` and SIGTERM its subclass `Terminated`."""
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    heeded = [number for number in _EXCEPTIONS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _handle) for number in heeded}
    report = sys.unraisablehook

    def report_others(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            report(lost)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def check() -> None:
    """Raise the exception of a signal that has arrived and got lost.

    Python raises it wherever it happens to be, and drops it where that is a callback of the garbage collector
    (JAX has one) or a destructor. Long work calls this now and then.
    """
    if _received:
        raise _received[-1]


def _handle(number: int, frame: FrameType | None) -> None:
    kind = _EXCEPTIONS[signal.Signals(number)]
    _received.append(kind)
    raise kind
