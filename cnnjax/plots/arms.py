"""Figures that compare categorical arms, and one published run with many of ours."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnjax.plots.style import (
    COLOURS,
    counted,
    draw_seeds,
    epoch_axis,
    finite,
    frame,
    legend_beside,
    line_style,
)
from cnnjax.stats.intervals import t_interval


def final_by_arm(
    values: npt.ArrayLike, names: Sequence[str], ylabel: str, *, title: str = "", caption: str = ""
) -> Figure:
    """Draw final values float[arms, seeds], an arm a column.

    Each thin line is one seed, broken where it diverged; the points are means with their 95% t intervals.
    """
    table, x = finite(values), np.arange(len(names))
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    draw_seeds(axis, x, table, "arms", linestyle="none", capsize=6)
    axis.set_ylabel(ylabel)
    axis.set_xticks(x, [name.replace(", ", ",\n") for name in names])
    axis.set_xlim(-0.5, len(names) - 0.5)
    legend_beside(figure)
    return figure


def against_costs(
    costs: Mapping[str, Sequence[float]],
    values: npt.ArrayLike,
    names: Sequence[str],
    ylabel: str,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw values float[arms, seeds], mean and 95% t interval, against costs on logarithmic axes.

    `costs` maps the label of each panel to one number per arm.
    """
    figure, axes = frame(5.2 * len(costs) + 2, 4.4, title, caption, panels=len(costs))
    mean, half, n = t_interval(values)
    for axis, (label, numbers) in zip(axes, costs.items(), strict=True):
        axis.set_xscale("log")
        for i, name in enumerate(names):
            look = {**line_style(i, "none"), "markersize": 7, "capsize": 5}
            axis.errorbar(numbers[i], mean[i], yerr=half[i], label=name, **look)
        _few_ticks(axis, numbers)
        axis.set(xlabel=label, ylabel=ylabel)
    legend_beside(figure, f"mean and 95% t interval\n({counted(n)})")
    return figure


def shift_sensitivity(
    accuracy: npt.ArrayLike, names: Sequence[str], *, title: str = "", caption: str = ""
) -> Figure:
    """Draw accuracy lost, in points, against pixels of shift: `accuracy` float[pixels, arms, seeds].

    Entry 0 is the accuracy without a shift; the loss is computed for each network by itself.
    """
    table = finite(accuracy)
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    pixels = np.arange(len(table))
    mean, half, n = t_interval(100 * (table[:1] - table))
    for i, name in enumerate(names):
        axis.errorbar(
            pixels + 0.04 * (i - (len(names) - 1) / 2),
            mean[:, i],
            yerr=half[:, i],
            **line_style(i, "-"),
            capsize=3,
            linewidth=1.2,
            label=name,
        )
    axis.set(
        xlabel="shift, pixels (a quarter of the images each way)", ylabel="accuracy lost, percentage points"
    )
    axis.set_xticks(pixels)
    legend_beside(figure, f"mean and 95% t interval\n({counted(n)})")
    return figure


def published_over_ours(
    panels: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike | None, npt.ArrayLike, npt.ArrayLike]],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw a published curve over the band of our runs, a panel for each label.

    A panel is (ours float[seeds, epochs], published float[epochs] or None, low float[epochs] and
    high float[epochs] of the band).
    """
    figure, axes = frame(4.6 * len(panels) + 2, 4.2, title, caption, panels=len(panels))
    for axis, (label, (ours, published, low, high)) in zip(axes, panels.items(), strict=True):
        table = finite(ours)
        epochs = np.arange(1, table.shape[1] + 1)
        for member in table:
            axis.plot(epochs, member, color=COLOURS[0], linewidth=0.5, alpha=0.5)
        axis.plot(epochs, t_interval(table, axis=0)[0], color=COLOURS[0], linewidth=2, label="our mean")
        axis.fill_between(
            epochs,
            np.asarray(low, float),
            np.asarray(high, float),
            color=COLOURS[0],
            alpha=0.18,
            linewidth=0,
            label="95% prediction interval\nof one more run",
        )
        if published is not None:
            axis.plot(
                epochs,
                np.asarray(published, float),
                color=COLOURS[1],
                marker="s",
                markersize=3.5,
                linewidth=1.2,
                label="published, one run",
            )
        axis.set_ylabel(label)
        epoch_axis(axis, np.asarray(epochs, float))
    legend_beside(figure, f"n={len(np.asarray(next(iter(panels.values()))[0]))}, thin lines: each run")
    return figure


def draw_differences(
    axis: Axes,
    names: Sequence[str],
    differences: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
) -> None:
    """Draw differences and their intervals, a row each from the top down; leave out what is NaN."""
    rows = np.arange(len(names))
    axis.axvline(0, color="black", linewidth=0.8)
    axis.hlines(rows, finite(low), finite(high), color=COLOURS[0], linewidth=3)
    axis.plot(finite(differences), rows, color=COLOURS[0], linestyle="none", marker="o", markersize=8)
    axis.set_yticks(rows, [textwrap.fill(name, 20) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)


def _few_ticks(axis: Axes, numbers: Sequence[float]) -> None:
    """Label the arms' own costs; matplotlib would label one power of ten, or none."""
    shown: list[float] = []
    for number in sorted(numbers):
        if not shown or number > 1.25 * shown[-1]:
            shown.append(number)
    axis.set_xticks(shown, [f"{number:,.0f}" if number >= 10 else f"{number:.2g}" for number in shown])
    axis.minorticks_off()
    axis.margins(x=0.15)
