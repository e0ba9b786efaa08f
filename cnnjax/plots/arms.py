"""Arms of an ablation: metrics over epochs, the generalisation gap, and values at the last epoch.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnjax.plots.curves import draw_bands, draw_differences
from cnnjax.plots.style import COLOURS, GREY, counted, finite, frame, legend_beside, mean_label
from cnnjax.shapes import Float, Floats, Int
from cnnjax.stats import Contrast
from cnnjax.stats.intervals import t_interval

Curves = Float[np.ndarray, "arms seeds epochs"]
Final = Float[np.ndarray, "arms seeds"]


def metric_bands(
    epochs: Int[np.ndarray, "epochs"],
    values: Curves,
    names: Sequence[str],
    ylabel: str,
    *,
    title: str = "",
    caption: str = "",
    mark_lowest: bool = False,
) -> Figure:
    """Draw each arm's mean and its 95% t interval.

    Members that are not finite at some epoch are left out at every epoch, so that the mean does not jump
    where one diverges; the legend gives the n that remains. `mark_lowest` rings the epoch at which each
    mean is lowest: for the validation loss, where overfitting begins.
    """
    return _bands(epochs, values, values if mark_lowest else None, names, ylabel, "lowest", title, caption)


def generalisation_gap(
    epochs: Int[np.ndarray, "epochs"],
    train: Curves,
    validation: Curves,
    names: Sequence[str],
    ylabel: str = "validation loss - training loss",
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw validation - train of two losses as `metric_bands` does.

    The ring is at the epoch where the arm's mean validation loss is lowest. A gap below zero is no
    error where the training loss is measured with dropout on and averaged while the weights still improve.
    """
    figure = _bands(
        epochs, validation - train, validation, names, ylabel, "lowest validation loss", title, caption
    )
    figure.axes[0].axhline(0, color="black", linewidth=0.8, zorder=1)
    return figure


def final_by_arm(
    values: Final,
    names: Sequence[str],
    ylabel: str,
    contrasts: Sequence[Contrast] = (),
    *,
    points: bool = False,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw final values, an arm a column, and beside them the paired differences.

    Each thin line is one seed, broken where it diverged; the points are means with their 95% t intervals.
    Overlapping intervals of arms say little about paired differences, which the second panel shows; with
    `points` it is in percentage points.
    """
    table, x = finite(values), np.arange(len(names))
    figure, axes = frame(12 if contrasts else 8.4, 4.6, title, caption, panels=2 if contrasts else 1)
    draw_seeds(axes[0], x, table, "arms", linestyle="none", capsize=6)
    axes[0].set_ylabel(ylabel)
    axes[0].set_xticks(x, [name.replace(", ", ",\n") for name in names])
    axes[0].set_xlim(-0.5, len(names) - 0.5)
    if contrasts:
        draw_contrasts(axes[1], contrasts, points=points)
    legend_beside(figure)
    return figure


def draw_contrasts(axis: Axes, contrasts: Sequence[Contrast], *, points: bool = False) -> None:
    """Draw paired differences to a reference; accuracies are in percentage `points`."""
    columns = ("difference", "low", "high", "test_low", "test_high")
    rows = np.array([[getattr(c, name) for name in columns] for c in contrasts])
    difference, low, high, test_low, test_high = (100 if points else 1) * rows.T
    described, tested = (low, high), (test_low, test_high)
    draw_differences(axis, [c.arm for c in contrasts], difference, described, tested)
    axis.set_xlabel(f"paired difference to {contrasts[0].reference}" + ", points" * points)


def draw_seeds(
    axis: Axes, x: Floats, values: Float[np.ndarray, "x seeds"], through: str, **style: Any
) -> None:
    """Draw a thin line for each seed, and the means with their 95% t intervals.

    The legend calls a thin line "one seed through all {through}"; `style` applies to the means.
    """
    seeds = axis.plot(x, values, color=GREY, linewidth=0.7, alpha=0.7, marker=".", markersize=3)
    mean, half, n = t_interval(values)
    label = f"{mean_label(half)}\n({counted(n)})"
    axis.errorbar(x, mean, yerr=half, color=COLOURS[0], marker="o", zorder=3, label=label, **style)
    if seeds:
        seeds[0].set_label(f"one seed through all {through}")


def _bands(
    epochs: Int[np.ndarray, "epochs"],
    values: Curves,
    losses: Curves | None,
    names: Sequence[str],
    ylabel: str,
    mark_name: str,
    title: str,
    caption: str,
) -> Figure:
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    draw_bands(axis, epochs, values, names, mark_lowest=losses)
    axis.set_ylabel(ylabel)
    ring = f"\nring: {mark_name}" if losses is not None else ""
    legend_beside(figure, mean_label(t_interval(values, axis=1)[1]) + ring)
    return figure
