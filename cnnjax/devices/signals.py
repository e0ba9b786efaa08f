"""Ctrl-C and SIGTERM as exceptions of the main thread that break nothing and do not get lost.

Python raises such an exception wherever the main thread happens to be. In the middle of an import it can
leave the import lock taken, on which another thread then waits for ever; in a destructor or a callback of the
garbage collector (JAX has one) it is dropped. So here it waits for the end of an import, and is raised again
where it was dropped.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

RETRY = 0.02
"""Seconds after which a signal that could not be heeded is looked at again."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is taken as Ctrl-C is: whoever saves at the one saves at the other."""


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Within this context, SIGINT raises `KeyboardInterrupt` and SIGTERM its subclass `Terminated`.

    SIGALRM is used to look again. Signals that the process was started to ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    kinds = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
    heeded = [number for number in kinds if signal.getsignal(number) is not signal.SIG_IGN]
    last: type[KeyboardInterrupt] = KeyboardInterrupt
    report = sys.unraisablehook

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal last
        last = kinds.get(signal.Signals(number), last)
        if _importing(frame):
            signal.setitimer(signal.ITIMER_REAL, RETRY)
        else:
            raise last

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, RETRY)
        else:
            report(lost)

    before = {number: signal.signal(number, handle) for number in (*heeded, signal.SIGALRM)}
    sys.unraisablehook = again
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and "importlib._bootstrap" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None
