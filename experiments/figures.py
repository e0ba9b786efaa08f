"""Figures of the ablations: costs and shifts, and a published run over ours.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.plots import Axes, Figure, style
from cnnjax.plots.arms import Final
from cnnjax.shapes import Float
from cnnjax.stats.intervals import t_interval


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
    figure, axes = style.frame(2.6 * len(costs) + 0.6, 3.8, title, caption, panels=len(costs))
    mean, half, n = t_interval(values)
    style.metric_axis(axes[0].yaxis, ylabel)
    for axis, (label, numbers) in zip(axes, costs.items(), strict=True):
        axis.set_xscale("log")
        for i, name in enumerate(names):
            look = {**style.line_style(i, "none"), "markersize": 7, "capsize": 5}
            axis.errorbar(numbers[i], mean[i], yerr=half[i], label=name, **look)
        _few_ticks(axis, numbers)
        axis.set_xlabel(label)
        axis.yaxis.set_major_formatter(axes[0].yaxis.get_major_formatter())
    style.legend_below(figure, f"{style.mean_label(half)} ({style.counted(n)})")
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
    table = style.finite(accuracy)
    figure, (axis,) = style.frame(5, 4, title, caption)
    pixels = np.arange(len(table))
    mean, half, n = t_interval(100 * (table[:1] - table))
    for i, name in enumerate(names):
        axis.errorbar(
            pixels + 0.04 * (i - (len(names) - 1) / 2),
            mean[:, i],
            yerr=half[:, i],
            **style.line_style(i, "-"),
            capsize=3,
            linewidth=1.2,
            label=name,
        )
    axis.set(
        xlabel="shift, pixels (a quarter of the images each way)", ylabel="accuracy lost, percentage points"
    )
    axis.set_xticks(pixels)
    style.legend_below(figure, f"{style.mean_label(half)} ({style.counted(n)})")
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
    figure, axes = style.frame(2.6 * len(panels) + 0.6, 3.8, title, caption, panels=len(panels))
    ours_colour, published_colour, *_ = style.COLOURS
    for axis, (label, (ours, published, low, high)) in zip(axes, panels.items(), strict=True):
        epochs = np.arange(1, ours.shape[1] + 1)
        runs = axis.plot(epochs, ours.T, color=ours_colour, linewidth=0.5, alpha=0.5)
        runs[0].set_label("one of our runs")
        mean = t_interval(ours, axis=0)[0]
        axis.plot(epochs, mean, color=ours_colour, linewidth=2, label=f"our mean (n={len(ours)})")
        band = "95% prediction interval of one more run"
        axis.fill_between(epochs, low, high, color=ours_colour, alpha=0.18, linewidth=0, label=band)
        if published is not None:
            look = {"color": published_colour, "marker": "s", "markersize": 3.5, "linewidth": 1.2}
            axis.plot(epochs, published, label="published, one run", **look)
        style.metric_axis(axis.yaxis, label)
        style.epoch_axis(axis, epochs)
    style.legend_below(figure)
    return figure


def _few_ticks(axis: Axes, numbers: Sequence[float]) -> None:
    """Label the arms' own costs; matplotlib would label one power of ten, or none."""
    shown: list[float] = []
    for number in sorted(numbers):
        if not shown or number > 1.6 * shown[-1]:
            shown.append(number)
    axis.set_xticks(
        shown, [f"{number:,.0f}" if number >= 10 else f"{number:.2g}" for number in shown], rotation=30
    )
    axis.minorticks_off()
    axis.margins(x=0.15)
