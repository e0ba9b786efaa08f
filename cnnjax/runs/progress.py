"""Show the epochs of a run: with a progress bar on a terminal, as plain lines elsewhere."""

import sys
from importlib.util import find_spec
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Screen:
    """Prints a line per epoch and, on a terminal, shows a progress bar for the current epoch."""

    def __init__(self, epochs: int, first: int = 1, verbose: bool = True) -> None:
        self._epochs, self._verbose, screen = epochs, verbose, Console(highlight=False)
        # In a notebook, Rich draws with ipywidgets.
        notebook = screen.is_jupyter and find_spec("ipywidgets") is not None
        self.live = verbose and (sys.stdout.isatty() or notebook)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=40),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            console=screen,
            transient=True,
            disable=not self.live,
        )
        self._task = self._bar.add_task("", total=1, epoch=first, epochs=epochs)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._bar.stop()

    def progress(self, epoch: int, done: int, parts: int) -> None:
        """Move the bar; the first part of an epoch resets it."""
        if done == 1:
            self._bar.reset(self._task, total=parts, epoch=epoch, epochs=self._epochs)
        self._bar.update(self._task, completed=done)

    def epoch(self, row: dict[str, float]) -> None:
        """Print the line of a finished epoch."""
        if not self._verbose:
            return
        line = (
            f"epoch {int(row['epoch']):{len(str(self._epochs))}d}/{self._epochs}"
            f"  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}"
            f"  val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}"
            f"  {row['seconds']:.1f} s"
        )
        if self.live:
            self._bar.console.print(line, markup=False)
        else:
            print(line, flush=True)
