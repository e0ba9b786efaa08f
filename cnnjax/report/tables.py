"""What an experiment tells: how far it is, its tables and sentences, summary.json and figures."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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

from cnnjax import plots
from cnnjax.data import Dataset
from cnnjax.experiment.results import Predictions, Results
from cnnjax.files import write_bytes
from cnnjax.plots import confusion
from cnnjax.stats import Summary, conclusion, summarise
from cnnjax.stats.confusion import confused_pairs, pair_sentence, worst_mistakes


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


def tell_ablation(results: Results, told: str, primary: str | None = None) -> dict[str, Any]:
    """Print the protocol, the table and what may be concluded; return it for summary.json.

    `told` is the protocol in a line, `primary` the arm whose contrast was chosen before the data were seen.
    """
    accuracy = summarise(results.final("val_accuracy"), results.arms, primary=primary)
    loss = summarise(results.final("val_loss"), results.arms, primary=primary, higher_is_better=False)
    sentence = conclusion(accuracy, "validation accuracy", accuracy=True)
    print(told)
    ablation_table(results, accuracy)
    print(sentence)
    return {
        "protocol": told,
        "val_accuracy": accuracy.as_dict(),
        "val_loss": loss.as_dict(),
        "conclusion": sentence,
    }


def tell_confusions(predictions: Mapping[str, Predictions], test: Dataset, shown: int = 4) -> dict[str, Any]:
    """Print the most confused pairs of the first arm, beside the others; return them for summary.json.

    `predictions` are those of the test images by arm; without any there is nothing to tell.
    """
    pairs = {arm: confused_pairs(test.labels, said) for arm, said in predictions.items()}
    if not pairs:
        return {}
    arm, first = next(iter(pairs.items()))
    table = Table("most confused", *(f"{arm} (n={len(of[0].counts)})" for arm, of in pairs.items()))
    for pair in first[:shown]:
        of_arms = (next(p for p in of if (p.a, p.b) == (pair.a, pair.b)) for of in pairs.values())
        table.add_row(
            f"{pair.a} and {pair.b}", *(spread(p.per_seed, int(len(p.counts) > 1)) for p in of_arms)
        )
    console().print(table)
    sentence = f"{arm}: {pair_sentence(first, 3, 5, len(test.labels))}"
    print(sentence)
    counts = {arm: {f"{p.a} and {p.b}": p.counts.tolist() for p in of[:shown]} for arm, of in pairs.items()}
    return {"confused": counts, "3 and 5": sentence}


def confusion_figure(
    predictions: Mapping[str, Predictions], test: Dataset, told: str, shown: int = 4
) -> dict[str, plots.Figure]:
    """The test images that the networks of the first arm confuse most, as confused.png."""
    if not predictions:
        return {}
    arm, said = next(iter(predictions.items()))
    rows = [
        (pair, worst_mistakes(test.labels, said, pair, confusion.COLUMNS))
        for pair in confused_pairs(test.labels, said)[:shown]
    ]
    title = f"What is confused most: test images, {arm}"
    return {"confused.png": confusion.worst_images(test.images, rows, title=title, caption=told)}


def draw(out: Path, figures: Mapping[str, plots.Figure]) -> None:
    """Write figures by file name."""
    for name, figure in figures.items():
        write_bytes(out / name, plots.png(figure))


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


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: names to the left, numbers to the right."""
    table = Table(*heads)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console().print(table)


def spread(values: np.ndarray, digits: int) -> str:
    """Mean ± sd of the finite values; a single one has no sd."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "-"
    sd = f" ± {np.std(finite, ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{np.mean(finite):.{digits}f}{sd}"
