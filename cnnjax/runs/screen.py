"""Show the epochs of a run: with a progress bar on a terminal or in a notebook, as plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn

WIDTH = 20
"""Characters of the bar."""
CLEAR = "\r" + " " * 79 + "\r"
"""Empties a line of a notebook, where rich would need ipywidgets."""


class Screen:
    """Prints a line per epoch and shows how far the run is: running metrics, and the time left."""

    def __init__(self, epochs: int, first: int = 1, verbose: bool = True) -> None:
        screen = Console(highlight=False)
        self._epochs, self._verbose, self._first = epochs, verbose, first
        self._notebook = verbose and screen.is_jupyter
        terminal = verbose and sys.stdout.isatty() and not self._notebook
        self.live = terminal or self._notebook
        self._began = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=screen,
            transient=True,
            disable=not terminal,
        )
        self._task = self._bar.add_task("", total=epochs - first + 1)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def progress(self, epoch: int, done: int, parts: int, running: Mapping[str, float]) -> None:
        """Show the parts of an epoch that are done, and the mean loss and accuracy over them."""
        full = math.floor(WIDTH * done / parts)
        metrics = f"loss {running['loss']:.4f}  acc {running['accuracy']:.4f}"
        line = f"epoch {self._number(epoch)} {'━' * full}{'─' * (WIDTH - full)}  {metrics}"
        epochs = epoch - self._first + done / parts
        if self._notebook:
            left = (time.monotonic() - self._began) / epochs * (self._epochs - self._first + 1 - epochs)
            print(f"{CLEAR}{line}  {left:.0f} s left", end="", flush=True)
        self._bar.update(self._task, completed=epochs, description=line)

    def epoch(self, row: dict[str, float]) -> None:
        """Print the line of a finished epoch."""
        if not self._verbose:
            return
        line = (
            f"epoch {self._number(int(row['epoch']))}"
            f"  loss {row['loss']:.4f}  acc {row['accuracy']:.4f}"
            f"  val_loss {row['val_loss']:.4f}  val_acc {row['val_accuracy']:.4f}"
            f"  {row['seconds']:.1f} s"
        )
        if self._bar.disable:
            print(CLEAR * self._notebook + line, flush=True)
        else:
            self._bar.console.print(line, markup=False)

    def _number(self, epoch: int) -> str:
        return f"{epoch:{len(str(self._epochs))}d}/{self._epochs}"
