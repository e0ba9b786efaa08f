"""Figures of the ablations: arms over epochs, rates, costs and shifts, and a published run over ours.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.plots import Axes, Figure
from cnnjax.plots.arms import Final, draw_contrasts, draw_seeds
from cnnjax.plots.style import (
    COLOURS,
    counted,
    epoch_axis,
    finite,
    frame,
    legend_beside,
    line_style,
    mean_label,
)
from cnnjax.shapes import Float
from cnnjax.stats import Contrast
from cnnjax.stats.intervals import t_interval


def final_vs_rate(
    rates: Float[np.ndarray, "arms"],
    values: Final,
    ylabel: str,
    contrasts: Sequence[Contrast] = (),
    *,
    points: bool = False,
    xlabel: str = "dropout rate",
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw final values against rates, and beside them the paired differences, see `final_by_arm`."""
    order = np.argsort(rates)
    x, table = rates[order], finite(values)[order]
    figure, axes = frame(12 if contrasts else 8.4, 4.6, title, caption, panels=2 if contrasts else 1)
    axis = axes[0]
    draw_seeds(axis, x, table, "rates", linewidth=2, capsize=5)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if np.diff(x).min(initial=np.inf) > np.ptp(x) / 12:
        axis.set_xticks(x, [f"{rate:g}" for rate in x])
    if contrasts:
        draw_contrasts(axes[1], contrasts, points=points)
    legend_beside(figure)
    return figure


def against_costs(
    costs: Mapping[str, Sequence[float]],
    values: Final,
    names: Sequence[str],
    ylabel: str,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw mean and 95% t interval against costs on logarithmic axes.

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
    legend_beside(figure, f"{mean_label(half)}\n({counted(n)})")
    return figure


def shift_sensitivity(
    accuracy: Float[np.ndarray, "pixels arms seeds"],
    names: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw accuracy lost, in points, against pixels of shift.

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
    legend_beside(figure, f"{mean_label(half)}\n({counted(n)})")
    return figure


class Panel(NamedTuple):
    """A metric of our runs and of the published one, and the band to draw."""

    ours: Float[np.ndarray, "runs epochs"]
    published: Float[np.ndarray, "epochs"] | None
    low: Float[np.ndarray, "epochs"]
    high: Float[np.ndarray, "epochs"]


def published_over_ours(
    panels: Mapping[str, Panel],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw a published curve over the band of our runs, a panel for each label."""
    figure, axes = frame(4.6 * len(panels) + 2, 4.2, title, caption, panels=len(panels))
    for axis, (label, (ours, published, low, high)) in zip(axes, panels.items(), strict=True):
        epochs = np.arange(1, ours.shape[1] + 1)
        for member in ours:
            axis.plot(epochs, member, color=COLOURS[0], linewidth=0.5, alpha=0.5)
        axis.plot(epochs, t_interval(ours, axis=0)[0], color=COLOURS[0], linewidth=2, label="our mean")
        axis.fill_between(
            epochs,
            low,
            high,
            color=COLOURS[0],
            alpha=0.18,
            linewidth=0,
            label="95% prediction interval\nof one more run",
        )
        if published is not None:
            axis.plot(
                epochs,
                published,
                color=COLOURS[1],
                marker="s",
                markersize=3.5,
                linewidth=1.2,
                label="published, one run",
            )
        axis.set_ylabel(label)
        epoch_axis(axis, epochs)
    legend_beside(figure, f"n={len(next(iter(panels.values())).ours)}, thin lines: each run")
    return figure


def _few_ticks(axis: Axes, numbers: Sequence[float]) -> None:
    """Label the arms' own costs; matplotlib would label one power of ten, or none."""
    shown: list[float] = []
    for number in sorted(numbers):
        if not shown or number > 1.25 * shown[-1]:
            shown.append(number)
    axis.set_xticks(shown, [f"{number:,.0f}" if number >= 10 else f"{number:.2g}" for number in shown])
    axis.minorticks_off()
    axis.margins(x=0.15)
