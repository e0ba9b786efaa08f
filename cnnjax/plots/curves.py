"""Metrics over epochs, the confusion matrix, differences between arms, and `png`.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnnjax.plots import style
from cnnjax.shapes import Float, Int
from cnnjax.stats.intervals import t_interval

Rows = Sequence[Mapping[str, float]]


def training_curves(
    history: Rows, published: Rows | None = None, title: str = "", caption: str = ""
) -> Figure:
    """Draw loss and accuracy over epochs, with the published run behind them in grey.

    Rows have the keys epoch, loss, accuracy, val_loss and val_accuracy (fractions of 1).
    """
    figure, axes = style.frame(6.8, 3.6, title, caption, panels=2)
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        draw_history(axis, metric, history, published)
        style.metric_axis(axis.yaxis, metric)
    style.legend_below(figure)
    return figure


def draw_history(axis: Axes, metric: str, history: Rows, published: Rows | None = None) -> None:
    """Draw "loss" or "accuracy" over epochs: training dashed, validation solid, the published run in grey."""
    for rows, colours, source, width, size in (
        (history, style.COLOURS, "", 1.8, 4),
        (published or [], (style.GREY, style.GREY), "published, one run: ", 1.1, 2.5),
    ):
        for i, (key, split) in enumerate((("", "training"), ("val_", "validation"))):
            if rows:
                axis.plot(
                    [row["epoch"] for row in rows],
                    [row[key + metric] for row in rows],
                    color=colours[i],
                    linestyle=("--", "-")[i],
                    marker=style.MARKERS[i],
                    markersize=size,
                    linewidth=width,
                    label=source + split,
                    zorder=1 + width,
                )
    style.epoch_axis(axis, [row["epoch"] for row in [*history, *(published or [])]])
    if metric == "loss":
        axis.set_ylim(bottom=0)


DESCRIBED, TESTED = "t interval", "interval of the test (without 0: significant)"
MOST_WRITTEN = 20
"""Most classes for which a confusion matrix has its counts written into the cells."""
MOST_NAMED = 50
"""Most classes that it names; of more, every second, third, ... is named."""


def confusion_matrix(
    counts: Int[np.ndarray, "classes classes"], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Draw counts: row = true class, column = predicted class.

    Only the errors are coloured: on one scale with the diagonal they would all look white.
    """
    errors = np.ma.masked_array(counts, np.eye(len(counts), dtype=bool))
    total, wrong = int(counts.sum()), int(counts.sum() - np.trace(counts))
    errors_line = f"{wrong:,} of {total:,} images wrong ({100 * wrong / max(total, 1):.2f}%)"
    figure, (axis,) = style.frame(5.6, 5.2, f"{title}\n{errors_line}" if title else errors_line, "")
    top = max(int(errors.filled(0).max()), 1)
    shades = colormaps["Oranges"].with_extremes(bad="#E5E5E5")
    image = axis.imshow(errors, cmap=shades, vmin=0, vmax=top)
    for (row, column), count in np.ndenumerate(counts):
        right = row == column
        if len(counts) <= MOST_WRITTEN and (right or count):
            axis.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                fontsize=8,
                fontweight="bold" if right else "normal",
                color="white" if count > 0.6 * top and not right else "black",
            )
    step = -(-len(counts) // MOST_NAMED)
    ticks, class_names = np.arange(len(counts))[::step], class_names[::step]
    turn = max(map(len, class_names)) > 3
    axis.set_xticks(ticks, class_names, rotation=45 if turn else 0, ha="right" if turn else "center")
    axis.set_yticks(ticks, class_names)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.grid(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, shrink=0.8, label="misclassified images")
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_bands(
    axis: Axes,
    epochs: Int[np.ndarray, "epochs"],
    values: Float[np.ndarray, "arms seeds epochs"],
    names: Sequence[str],
    *,
    mark_lowest: Float[np.ndarray, "arms seeds epochs"] | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Draw the mean of each arm and its 95% t interval.

    Args:
        axis: where to draw.
        epochs: their numbers.
        values: members that are not finite at some epoch are left out.
        names: one for each arm.
        mark_lowest: losses; a ring marks the epoch where their mean is lowest.
        limits: the bands are clipped to these.
    """
    whole = np.asarray(np.isfinite(values).all(axis=-1, keepdims=True))
    table = np.where(whole, values, np.nan)
    losses = [None] * len(table) if mark_lowest is None else np.where(whole, mark_lowest, np.nan)
    for i, (name, arm, loss) in enumerate(zip(names, table, losses, strict=True)):
        mean, half, n = t_interval(arm, axis=0)
        colour = style.COLOURS[i % len(style.COLOURS)]
        label = f"{name} ({style.counted(n)})"
        if loss is not None and whole[i].any():
            lowest = int(np.argmin(t_interval(loss, axis=0)[0]))
            label += f", ring at epoch {epochs[lowest]}"
            axis.plot(epochs[lowest], mean[lowest], "o", ms=13, mfc="none", mec=colour, mew=1.8, zorder=4)
        low, high = np.clip((mean - half, mean + half), *limits)
        if len(epochs) > 1:
            axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        else:  # a band of one epoch has no width
            axis.vlines(epochs, low, high, color=colour, alpha=0.4, linewidth=6)
        # A marker on every epoch of a long run would hide the line.
        every = max(1, len(epochs) // 20)
        axis.plot(epochs, mean, **style.line_style(i), markersize=4, markevery=every, label=label)
    style.epoch_axis(axis, epochs)


def draw_differences(
    axis: Axes,
    names: Sequence[str],
    differences: Float[np.ndarray, "arms"],
    described: tuple[Float[np.ndarray, "arms"], Float[np.ndarray, "arms"]],
    tested: tuple[Float[np.ndarray, "arms"], Float[np.ndarray, "arms"]],
) -> None:
    """Draw differences, a row each from the top down, with two intervals; leave out what is not finite.

    The thick line is the t interval `described`; the thin one with ends is that of the test, `tested`.
    """
    rows = np.arange(len(names))
    axis.axvline(0, color="black", linewidth=0.8)
    for (low, high), label, width, alpha in ((described, DESCRIBED, 5.0, 0.5), (tested, TESTED, 1.2, 1.0)):
        low, high = style.finite(low), style.finite(high)
        drawn = axis.hlines(rows, low, high, color=style.COLOURS[0], linewidth=width, alpha=alpha)
        if np.isfinite(low + high).any():
            drawn.set_label(label)
    for ends in tested:
        axis.plot(
            style.finite(ends), rows, color=style.COLOURS[0], linestyle="none", marker="|", markersize=9
        )
    axis.plot(
        style.finite(differences), rows, color=style.COLOURS[0], linestyle="none", marker="o", markersize=8
    )
    axis.set_yticks(rows, row_labels(names))
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.margins(x=0.08)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)


def row_labels(names: Sequence[str]) -> list[str]:
    """Break names into at most three short lines, for the rows of `draw_differences`."""
    return [textwrap.fill(name, 20, max_lines=3, placeholder=" \N{HORIZONTAL ELLIPSIS}") for name in names]
