"""The progress of an experiment: a bar on a terminal, lines elsewhere."""

import math
import time
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cnnjax.report.tables import console


class MemberProgress:
    """Show finished network-epochs and the time left; without a terminal, at most one line a minute."""

    def __init__(self) -> None:
        self._console = console()
        self._bar = Progress(
            TextColumn("network-epochs"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._first: tuple[float, int] | None = None
        self._printed = -math.inf

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Set the number of finished network-epochs, including those of earlier starts."""
        self._bar.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        elif not self._console.is_terminal and (now - self._printed > 60 or done == total):
            self._printed = now
            began, before = self._first
            each = (now - began) / max(done - before, 1)
            left = each * (total - done) / 60
            print(f"{done} of {total} network-epochs, {each:.2f} s each, {left:.1f} min left", flush=True)
