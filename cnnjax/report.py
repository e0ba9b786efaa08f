"""What the screen shows of an experiment: how far it is, and its table."""

import math
import time
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from cnnjax.results import Results
from cnnjax.stats import Summary


class MemberProgress:
    """A bar over network-epochs with the time left; away from a terminal, a line a minute at most."""

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
        self._told = -math.inf

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it where it is."""
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Tell how many network-epochs are finished, those of an earlier start included."""
        self._bar.update(self._task, completed=done, total=total)
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        elif not self._console.is_terminal and (now - self._told > 60 or done == total):
            self._told = now
            began, before = self._first
            each = (now - began) / max(done - before, 1)
            left = each * (total - done) / 60
            print(f"{done} of {total} network-epochs, {each:.2f} s each, {left:.1f} min left", flush=True)


def console() -> Console:
    """The terminal; elsewhere a width that breaks no line of a table."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160)


def ablation_table(results: Results, summary: Summary) -> None:
    """Print arm, final metrics (mean and sd), gap, and the paired difference to the first arm.

    `summary` is that of the final validation accuracy. The gap is validation loss minus training loss,
    both measured without dropout.
    """
    contrasts = {contrast.arm: contrast for contrast in summary.contrasts}
    table = Table(
        "arm",
        "n",
        "val accuracy %",
        "val loss",
        "test accuracy %",
        "gap (loss)",
        f"difference to {summary.arms[0].name}, points [95%]",
        "p (corrected)",
    )
    gap = results.final("val_loss") - results.final("train_loss")
    for i, arm in enumerate(summary.arms):
        contrast = contrasts.get(arm.name)
        table.add_row(
            arm.name,
            f"{arm.n}" + (f" ({arm.diverged} diverged)" if arm.diverged else ""),
            spread(100 * results.final("val_accuracy")[i], 2),
            spread(results.final("val_loss")[i], 4),
            spread(100 * results.final("test_accuracy")[i], 2),
            spread(gap[i], 4),
            "reference"
            if contrast is None
            else f"{100 * contrast.difference:+.2f} [{100 * contrast.low:+.2f}, {100 * contrast.high:+.2f}]",
            "" if contrast is None else f"{contrast.p:.3f} ({contrast.p_holm:.3f})",
        )
    console().print(table)


def spread(values: np.ndarray, digits: int) -> str:
    """Mean +- sd of the finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "-"
    sd = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return f"{np.mean(finite):.{digits}f} ± {sd:.{digits}f}"
