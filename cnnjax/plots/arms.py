"""Arms of an ablation: metrics over epochs, the generalisation gap, and values at the last epoch.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnnjax.plots.curves import draw_bands, draw_differences, row_labels
from cnnjax.plots.style import (
    COLOURS,
    GREY,
    counted,
    finite,
    frame,
    is_share,
    legend_below,
    mean_label,
    metric_axis,
)
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
    ylabel: str = "validation - training loss",
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
    metric: str,
    contrasts: Sequence[Contrast] = (),
    *,
    rates: Sequence[float] = (),
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw final values, an arm a row, and beside them the paired differences.

    Each thin line is one seed, broken where it diverged; the points are means with their 95% t intervals.
    Overlapping intervals of arms say little about paired differences, which the second panel shows: of
    accuracies, in percentage points. With dropout `rates`, one an arm, these are the x axis.
    """
    table, labels = finite(values), row_labels(names)
    lines = max(label.count("\n") + 1 for label in labels)
    height = 3.8 if rates else 2 + (0.12 + 0.17 * lines) * len(names)
    figure, axes = frame(6.8 if contrasts else 5, height, title, caption, panels=2 if contrasts else 1)
    axis = axes[0]
    if rates:
        x, order = np.asarray(rates), np.argsort(rates)
        draw_seeds(axis, x[order], table[order], "rates", linewidth=2, capsize=5)
        metric_axis(axis.yaxis, metric)
        axis.set_xlabel("dropout rate")
        if np.diff(x[order]).min(initial=np.inf) > np.ptp(x) / 12:
            axis.set_xticks(x, [f"{rate:g}" for rate in x])
    else:
        rows = np.arange(len(names), dtype=float)
        draw_seeds(axis, rows, table, "arms", rows=True, linestyle="none", capsize=6)
        metric_axis(axis.xaxis, metric)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_yticks(rows, labels)
        axis.set_ylim(len(names) - 0.5, -0.5)
    if contrasts:
        draw_contrasts(axes[1], contrasts, points=is_share(metric))
        if not rates and [c.arm for c in contrasts] == list(
            names[1:]
        ):  # the rows are those of the first panel
            axes[1].set_ylim(len(names) - 1.5, -1.5)
            axes[1].tick_params(axis="y", labelleft=False, length=0)
    legend_below(figure)
    return figure


def draw_contrasts(axis: Axes, contrasts: Sequence[Contrast], *, points: bool = False) -> None:
    """Draw paired differences to a reference; accuracies are in percentage `points`."""
    columns = ("difference", "low", "high", "test_low", "test_high")
    rows = np.array([[getattr(c, name) for name in columns] for c in contrasts])
    difference, low, high, test_low, test_high = (100 if points else 1) * rows.T
    described, tested = (low, high), (test_low, test_high)
    draw_differences(axis, [c.arm for c in contrasts], difference, described, tested)
    label = f"paired difference to {contrasts[0].reference}" + ", points" * points
    axis.set_xlabel(textwrap.fill(label, 36))


def draw_seeds(
    axis: Axes,
    places: Floats,
    values: Float[np.ndarray, "places seeds"],
    through: str,
    *,
    rows: bool = False,
    **style: Any,
) -> None:
    """Draw a thin line for each seed, and the means with their 95% t intervals.

    The legend calls a thin line "one seed through all {through}"; `style` applies to the means. The places
    are on the x axis, or on the y axis if they are `rows`.
    """
    thin = {"color": GREY, "linewidth": 0.7, "alpha": 0.7, "marker": ".", "markersize": 3}
    seeds = axis.plot(values, places, **thin) if rows else axis.plot(places, values, **thin)
    mean, half, n = t_interval(values)
    points = {"x": mean, "y": places, "xerr": half} if rows else {"x": places, "y": mean, "yerr": half}
    look = {"color": COLOURS[0], "marker": "o", "zorder": 3, "label": f"{mean_label(half)} ({counted(n)})"}
    axis.errorbar(**points, **look, **style)
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
    height = 3.2 + 0.2 * sum(-(-len(name) // 30) for name in names)  # a legend has one line or more an arm
    figure, (axis,) = frame(5, height, title, caption)
    draw_bands(axis, epochs, values, names, mark_lowest=losses)
    metric_axis(axis.yaxis, ylabel)
    ring = f"; ring: {mark_name}" if losses is not None else ""
    legend_below(figure, mean_label(t_interval(values, axis=1)[1]) + ring)
    return figure
