"""The progress of an experiment: a bar on a terminal or in a notebook, lines elsewhere."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from cnnjax.report.terminal import console

WIDTH = 40
"""Characters of a bar."""


@contextmanager
def member_progress() -> Iterator[Callable[[int, int], None]]:
    """Show finished network-epochs and the time left; without a terminal, at most one line a minute.

    Yields a function of the number of finished network-epochs, with those of earlier starts, and their total.
    """
    screen = console()
    columns = BarColumn(bar_width=WIDTH), MofNCompleteColumn(), "elapsed", TimeElapsedColumn(), "left"
    first: tuple[float, int] | None = None
    printed = -math.inf
    with Progress(
        "network-epochs", *columns, TimeRemainingColumn(), console=screen, disable=not screen.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        def update(done: int, total: int) -> None:
            nonlocal first, printed
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if first is None:
                first = now, done
            elif not screen.is_terminal and (screen.is_jupyter or now - printed > 60 or done == total):
                printed = now
                each = (now - first[0]) / max(done - first[1], 1)
                left = each * (total - done) / 60
                line = f"{done} of {total} network-epochs, {each:.2f} s each, {left:.1f} min left"
                # In a notebook, a carriage return starts the line again; rich's bar would need ipywidgets.
                full = WIDTH * done // total
                drawn = f"\r{'█' * full}{'░' * (WIDTH - full)} " if screen.is_jupyter else ""
                print(f"{drawn}{line}", end="" if drawn and done < total else "\n", flush=True)

        yield update
