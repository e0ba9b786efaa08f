"""Figures of metrics over epochs, the confusion matrix, final values against a rate, and `png`.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnnjax.plots.style import (
    COLOURS,
    DPI,
    GREY,
    MARKERS,
    counted,
    draw_seeds,
    epoch_axis,
    finite,
    frame,
    legend_beside,
    line_style,
)
from cnnjax.stats.intervals import t_interval

Rows = Sequence[Mapping[str, float]]


def training_curves(
    history: Rows, published: Rows | None = None, title: str = "", caption: str = ""
) -> Figure:
    """Draw loss and accuracy over epochs, with the published run behind them in grey.

    Rows have the keys epoch, loss, accuracy, val_loss and val_accuracy (fractions of 1).
    """
    figure, axes = frame(11, 4.2, title, caption, panels=2)
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        draw_history(axis, metric, history, published)
        axis.set_ylabel(metric)
    legend_beside(figure)
    return figure


def draw_history(axis: Axes, metric: str, history: Rows, published: Rows | None = None) -> None:
    """Draw "loss" or "accuracy" over epochs: training dashed, validation solid, the published run in grey."""
    for rows, colours, source, width, size in (
        (history, COLOURS, "", 1.8, 4),
        (published or [], (GREY, GREY), "published, one run: ", 1.1, 2.5),
    ):
        for i, (key, split) in enumerate((("", "training"), ("val_", "validation"))):
            if rows:
                axis.plot(
                    [row["epoch"] for row in rows],
                    [row[key + metric] for row in rows],
                    color=colours[i],
                    linestyle=("--", "-")[i],
                    marker=MARKERS[i],
                    markersize=size,
                    linewidth=width,
                    label=source + split,
                    zorder=1 + width,
                )
    epoch_axis(axis, [row["epoch"] for row in [*history, *(published or [])]])
    if metric == "loss":
        axis.set_ylim(bottom=0)


MOST_WRITTEN = 20
"""Most classes for which a confusion matrix has its counts written into the cells."""
MOST_NAMED = 50
"""Most classes that it names; of more, every second, third, ... is named."""


def confusion_matrix(
    counts: npt.NDArray[np.integer[Any]], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Draw counts int[C, C]: row = true class, column = predicted class.

    Only the errors are coloured: on one scale with the diagonal they would all look white.
    """
    counts = np.asarray(counts)
    errors = np.ma.masked_array(counts, np.eye(len(counts), dtype=bool))
    total, wrong = int(counts.sum()), int(counts.sum() - np.trace(counts))
    errors_line = f"{wrong:,} of {total:,} images wrong ({100 * wrong / max(total, 1):.2f}%)"
    figure, (axis,) = frame(7.6, 6.6, f"{title}\n{errors_line}" if title else errors_line, "")
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
                fontsize=9,
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


def metric_bands(
    epochs: npt.ArrayLike,
    values: npt.ArrayLike,
    names: Sequence[str],
    ylabel: str,
    *,
    title: str = "",
    caption: str = "",
    mark_lowest: bool = False,
) -> Figure:
    """Draw values float[arms, seeds, epochs]: each arm's mean and its 95% t interval.

    Members that are not finite at some epoch are left out at every epoch, so that the mean does not jump
    where one diverges; the legend gives the n that remains. `mark_lowest` rings the epoch at which each
    mean is lowest: for the validation loss, where overfitting begins.
    """
    return _bands(epochs, values, values if mark_lowest else None, names, ylabel, "lowest", title, caption)


def generalisation_gap(
    epochs: npt.ArrayLike,
    train: npt.ArrayLike,
    validation: npt.ArrayLike,
    names: Sequence[str],
    ylabel: str = "validation loss - training loss",
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw validation - train of two losses float[arms, seeds, epochs] as `metric_bands` does.

    The ring is at the epoch where the arm's mean validation loss is lowest. A gap below zero is no
    error where the training loss is measured with dropout on and averaged while the weights still improve.
    """
    gap = np.asarray(validation, float) - np.asarray(train, float)
    figure = _bands(epochs, gap, validation, names, ylabel, "lowest validation loss", title, caption)
    figure.axes[0].axhline(0, color="black", linewidth=0.8, zorder=1)
    return figure


def final_vs_rate(
    rates: npt.ArrayLike,
    values: npt.ArrayLike,
    ylabel: str,
    *,
    xlabel: str = "dropout rate",
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw final values float[arms, seeds] against rates float[arms].

    Each thin line is one seed, broken where it diverged; the points are means with their 95% t intervals.
    Seeds that rise together show a difference that overlapping intervals of single arms hide.
    """
    x = np.asarray(rates, float)
    order = np.argsort(x)
    x, table = x[order], finite(values)[order]
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    draw_seeds(axis, x, table, "rates", linewidth=2, capsize=5)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if np.diff(x).min(initial=np.inf) > np.ptp(x) / 12:
        axis.set_xticks(x, [f"{rate:g}" for rate in x])
    legend_beside(figure)
    return figure


def png(figure: Figure) -> bytes:
    """Render a figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # Without this, matplotlib writes its version into the file.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def draw_bands(
    axis: Axes,
    epochs: npt.ArrayLike,
    values: npt.ArrayLike,
    names: Sequence[str],
    *,
    mark_lowest: npt.ArrayLike | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Draw values float[arms, seeds, epochs]: the mean of each arm and its 95% t interval.

    Args:
        axis: where to draw.
        epochs: float[epochs].
        values: members that are not finite at some epoch are left out.
        names: one for each arm.
        mark_lowest: losses shaped like `values`; a ring marks the epoch where their mean is lowest.
        limits: the bands are clipped to these.
    """
    x, table = np.asarray(epochs, float), np.asarray(values, float)
    whole = np.asarray(np.isfinite(table).all(axis=-1, keepdims=True))
    table = np.where(whole, table, np.nan)
    losses = [None] * len(table) if mark_lowest is None else np.where(whole, mark_lowest, np.nan)
    for i, (name, arm, loss) in enumerate(zip(names, table, losses, strict=True)):
        mean, half, n = t_interval(arm, axis=0)
        colour = COLOURS[i % len(COLOURS)]
        label = f"{name} ({counted(n)})"
        if loss is not None and whole[i].any():
            lowest = int(np.argmin(t_interval(loss, axis=0)[0]))
            label += f"\nring at epoch {x[lowest]:g}"
            axis.plot(x[lowest], mean[lowest], "o", ms=13, mfc="none", mec=colour, mew=1.8, zorder=4)
        low, high = np.clip((mean - half, mean + half), *limits)
        axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        # A marker on every epoch of a long run would hide the line.
        axis.plot(x, mean, **line_style(i), markersize=4, markevery=max(1, len(x) // 20), label=label)
    epoch_axis(axis, x)


def _bands(
    epochs: npt.ArrayLike,
    values: npt.ArrayLike,
    losses: npt.ArrayLike | None,
    names: Sequence[str],
    ylabel: str,
    mark_name: str,
    title: str,
    caption: str,
) -> Figure:
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    draw_bands(axis, epochs, values, names, mark_lowest=losses)
    axis.set_ylabel(ylabel)
    legend_beside(figure, "mean and 95% t interval" + (f"\nring: {mark_name}" if losses is not None else ""))
    return figure
