"""Turn Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 into exceptions that do no harm where they are raised.

Python raises the exception of a signal wherever the main thread happens to be. During an import, that can
leave the import lock held, and another thread then waits forever. Between the creation of a temporary file
and the `try` that removes it, the file stays. In a destructor or a garbage collection callback (JAX has one),
the exception is dropped. Here it is delayed until the import or the function of `cnnjax.files` ends, and
raised again if it was dropped.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

RETRY = 0.02
"""Seconds between attempts to raise a delayed or dropped signal."""

_IMPORTS, _FILES = (
    "importlib._bootstrap",
    os.path.join(os.path.dirname(os.path.dirname(__file__)), "files", ""),
)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a subclass of what Ctrl-C raises, so that code that saves on one saves on all."""

    number = signal.SIGTERM


class HungUp(Terminated):
    """SIGHUP: the terminal or the connection is gone."""

    number = signal.SIGHUP


class Warned(Terminated):
    """SIGUSR1: what Slurm sends before a job's time is over, if asked to."""

    number = signal.SIGUSR1


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Within this context, SIGINT raises `KeyboardInterrupt`; SIGTERM, SIGHUP and SIGUSR1 its subclasses.

    SIGALRM triggers the retries. Signals that the process was started to ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield
        return
    kinds = {signal.SIGINT: KeyboardInterrupt, **{kind.number: kind for kind in (Terminated, HungUp, Warned)}}
    handled = [number for number in kinds if signal.getsignal(number) is not signal.SIG_IGN]
    wanted: type[KeyboardInterrupt] | None = None
    retried = False
    report = sys.unraisablehook

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal wanted
        wanted = kinds.get(signal.Signals(number), wanted)
        if wanted is None:  # a late alarm
            return
        if _uninterrupted(frame):
            again()
        else:
            signal.setitimer(signal.ITIMER_REAL, 0)
            kind, wanted = wanted, None
            raise kind

    def again() -> None:
        nonlocal retried
        retried = True
        signal.setitimer(signal.ITIMER_REAL, RETRY, RETRY)

    def retry(dropped: Any) -> None:
        nonlocal wanted
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            wanted = dropped.exc_type
            again()
        else:
            report(dropped)

    before = {number: signal.signal(number, handle) for number in (*handled, signal.SIGALRM)}
    sys.unraisablehook = retry
    try:
        yield
    finally:
        wanted = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = report
        for number, handler in before.items():
            # Another thread may be about to note an alarm, which needs its handler still.
            if not (retried and number == signal.SIGALRM):
                signal.signal(number, handler)


def _uninterrupted(frame: FrameType | None) -> bool:
    while frame is not None:
        source = frame.f_code.co_filename
        if _IMPORTS in source or source.startswith(_FILES):
            return True
        frame = frame.f_back
    return False
