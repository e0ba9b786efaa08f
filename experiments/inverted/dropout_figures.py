"""Figures of `inverted_dropout.py`: pure functions from numbers to a matplotlib Figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnjax.plots import Axes, Figure
from cnnjax.plots.style import COLOURS, GREY, HALO, LINES, MARKERS, frame, legend_below
from cnnjax.shapes import Floats
from cnnjax.stats.intervals import t_interval


def activations(
    training: Mapping[str, npt.ArrayLike],
    test: Mapping[str, npt.ArrayLike],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw mean activations of each form of dropout: training float[seeds, masks], test float[seeds].

    Left: both modes. Right: the ratio of test to training, with a dot for each seed and mask.
    """
    figure, (levels, ratios) = frame(6.8, 4.2, title, caption, panels=2)
    for i, values in enumerate((_per_seed(training), {k: np.asarray(v) for k, v in test.items()})):
        mean, half, _ = t_interval(np.stack(list(values.values())))
        levels.errorbar(
            np.arange(len(mean)) + (-0.12, 0.12)[i],
            mean,
            yerr=half,
            color=COLOURS[i],
            marker=MARKERS[i],
            markersize=8,
            linestyle="none",
            capsize=6,
            label=("in training", "at test")[i],
        )
        side = (-1, 1)[i]
        for x, value in enumerate(mean):
            levels.annotate(
                f"{value:.3f}",
                (x + 0.12 * side, value),
                (9 * side, 0),
                textcoords="offset points",
                ha=("right", "left")[i],
                va="center",
                fontsize=8,
                path_effects=HALO,
            )
    for x, name in enumerate(training):
        every = np.asarray(test[name], float)[:, None] / np.asarray(training[name], float)
        spread = np.linspace(-0.18, 0.18, every.size)
        ratios.plot(x + spread, every.ravel(), ".", color=GREY, markersize=3, zorder=2)
        mean, half, _ = t_interval(every.mean(axis=1))
        ratios.errorbar(x, mean, yerr=half, color=COLOURS[2], marker="D", markersize=7, capsize=6, zorder=3)
        look = {"ha": "center", "fontsize": 8, "path_effects": HALO}
        ratios.annotate(f"{mean:.3f}", (x, float(mean)), (0, 12), textcoords="offset points", **look)
    for axis, label in ((levels, "mean input of Dense_0"), (ratios, "test / training")):
        axis.set_xticks(range(len(training)), list(training))
        axis.set(ylabel=label, xlim=(-0.75, len(training) - 0.25))
        axis.set_ylim(0, axis.get_ylim()[1] * 1.12)
    ratios.axhline(1, color="black", linewidth=0.8, zorder=1)
    legend_below(figure)
    return figure


def same_function(
    reference: Mapping[str, npt.ArrayLike],
    others: Mapping[str, Mapping[str, npt.ArrayLike]],
    notes: Mapping[str, Mapping[str, str]],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw logits of other networks against a reference: a row per optimizer, a column per network.

    `reference[row]` and `others[row][column]` are float[points]; `notes[row][column]` is its text.
    """
    columns = list(next(iter(others.values())))
    size = 2.6 * len(columns), 2.9 * len(others) + 0.6
    figure, axes = frame(*size, title, caption, panels=len(columns), rows=len(others))
    for i, (row, networks) in enumerate(others.items()):
        for j, (column, logits) in enumerate(networks.items()):
            axis = axes[i * len(columns) + j]
            x, y = np.asarray(reference[row], float), np.asarray(logits, float)
            low, high = min(x.min(), y.min()), max(x.max(), y.max())
            axis.plot((low, high), (low, high), color="black", linewidth=0.8)
            axis.plot(x, y, ".", color=COLOURS[i], markersize=2.5, alpha=0.5, rasterized=True)
            axis.set_aspect("equal")
            axis.set_title(f"{row}: {column}", fontsize=8)
            note = {"xycoords": "axes fraction", "va": "top", "fontsize": 7.5, "path_effects": HALO}
            axis.annotate(notes[row][column], (0.04, 0.96), **note)
            axis.set(xlabel="logit, inverted network", ylabel="" if j else "logit, classic network")
    return figure


def monte_carlo(
    averaged: Mapping[str, npt.ArrayLike],
    scaled: Mapping[str, npt.ArrayLike],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw averages of k sampled networks, float[seeds, k], against weight scaling, float[seeds].

    A column for each metric: its values above, the paired difference below.
    """
    figure, axes = frame(6.8, 6.2, title, caption, panels=len(averaged), rows=2)
    panels = zip(axes, axes[len(averaged) :], strict=False)
    for (metric, table), (value, difference) in zip(averaged.items(), panels, strict=True):
        curve, line = np.asarray(table, float), np.asarray(scaled[metric], float)
        k = np.arange(1, curve.shape[1] + 1)
        value.plot(k, curve.T, color=GREY, linewidth=0.6, alpha=0.7)[0].set_label("average, one seed")
        _band(value, k, curve, 0, "average of k sampled networks")
        _band(value, k, np.repeat(line[:, None], len(k), axis=1), 1, "weight scaling")
        _band(difference, k, curve - line[:, None], 2, "average minus weight scaling, paired by seed")
        difference.axhline(0, color="black", linewidth=0.8)
        tail = (curve - line[:, None])[:, min(len(k) - 1, 4) :]
        # The first few k are ten times as far away and would hide where the two meet.
        mean, half, _ = t_interval(tail, axis=0)
        difference.set_ylim(*_around(mean, half))
        value.set(ylabel=metric)
        difference.set(ylabel=f"difference of {metric}")
        for axis in (value, difference):
            axis.set_xscale("log")
            axis.set_xlabel("k, number of sampled networks")
            ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if t <= len(k)]
            axis.set_xticks(ticks, list(map(str, ticks)))
            axis.minorticks_off()
    legend_below(figure)
    return figure


def _band(axis: Axes, k: Any, table: Floats, i: int, label: str) -> None:
    mean, half, _ = t_interval(table, axis=0)
    axis.fill_between(k, mean - half, mean + half, color=COLOURS[i], alpha=0.2, linewidth=0)
    axis.plot(k, mean, color=COLOURS[i], linestyle=LINES[i], linewidth=2, label=label)


def _around(mean: Floats, half: Floats) -> tuple[float, float]:
    """Axis limits that include all intervals and 0."""
    half = np.nan_to_num(half)
    low, high = min(0.0, float(np.min(mean - half))), max(0.0, float(np.max(mean + half)))
    room = (high - low) or 1.0
    return low - 0.1 * room, high + 0.1 * room


def _per_seed(values: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
    return {name: np.asarray(table, float).mean(axis=1) for name, table in values.items()}
