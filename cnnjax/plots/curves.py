"""Figures: pure functions from numbers to a matplotlib Figure, and `png`, which renders one.

`title` is a line above the figure; `caption` is a line below it for n and the protocol.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnnjax.plots.style import (
    COLOURS,
    DPI,
    GREY,
    LINES,
    MARKERS,
    counted,
    draw_seeds,
    epoch_axis,
    finite,
    frame,
    legend_beside,
)
from cnnjax.stats.intervals import Floats, t_interval

Rows = Sequence[Mapping[str, float]]


def training_curves(
    history: Rows, published: Rows | None = None, title: str = "", caption: str = ""
) -> Figure:
    """Draw loss and accuracy over epochs, with the published run behind them in grey.

    Rows have the keys epoch, loss, accuracy, val_loss and val_accuracy (fractions of 1).
    """
    figure, axes = frame(11, 4.2, title, caption, panels=2)
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for rows, colours, source, width, size in (
            (history, COLOURS, "", 1.8, 4),
            (published or [], (GREY, GREY), "published, one run: ", 1.1, 2.5),
        ):
            # Dashes for training and a full line for validation, ours and theirs alike.
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
        axis.set_ylabel(metric)
        epoch_axis(axis, [row["epoch"] for row in [*history, *(published or [])]])
    axes[0].set_ylim(bottom=0)
    legend_beside(figure)
    return figure


def confusion_matrix(
    counts: npt.NDArray[np.integer[Any]], class_names: Sequence[str], title: str = ""
) -> Figure:
    """Draw counts int[C, C]: row = true class, column = predicted class.

    Only the errors are coloured: on one scale with the diagonal they would all look like nothing.
    """
    counts = np.asarray(counts)
    errors = np.ma.masked_array(counts, np.eye(len(counts), dtype=bool))
    total, wrong = int(counts.sum()), int(counts.sum() - np.trace(counts))
    told = f"{wrong:,} of {total:,} images wrong ({100 * wrong / max(total, 1):.2f}%)"
    figure, (axis,) = frame(7.6, 6.6, f"{title}\n{told}" if title else told, "")
    top = max(int(errors.filled(0).max()), 1)
    shades = colormaps["Oranges"].with_extremes(bad="#E5E5E5")
    image = axis.imshow(errors, cmap=shades, vmin=0, vmax=top)
    for (row, column), count in np.ndenumerate(counts):
        right = row == column
        if right or count:
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
    ticks = np.arange(len(counts))
    turn = max(map(len, class_names)) > 3
    axis.set_xticks(ticks, class_names, rotation=45 if turn else 0, ha="right" if turn else "center")
    axis.set_yticks(ticks, class_names)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.grid(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, shrink=0.8, label="images put into the wrong class")
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

    A member that is not finite at some epoch is left out at all of them, so that no line jumps
    where it left; the legend has the n that remains. `mark_lowest` rings the epoch at which each
    mean is lowest: with the validation loss, where overfitting begins to cost.
    """
    table = _whole_members(values)
    marks = [_lowest(arm) for arm in table] if mark_lowest else None
    return _bands(epochs, table, names, ylabel, marks, "lowest", title, caption)


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
    mistake where the training loss is the one seen with dropout on, averaged while the weights
    still improve.
    """
    gap = _whole_members(np.asarray(validation, float) - np.asarray(train, float))
    # Members that are missing from the gap must be missing from the loss that is marked on it.
    loss = np.where(np.isnan(gap), np.nan, np.asarray(validation, float))
    marks = [_lowest(arm) for arm in loss]
    figure = _bands(epochs, gap, names, ylabel, marks, "lowest validation loss", title, caption)
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

    A thin line is one seed through all rates (it is cut where the member diverged); the points are
    means with their 95% t intervals. Seeds that rise together show a difference that overlapping
    intervals of single arms hide.
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
    """Render a figure as PNG: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # matplotlib's version, which it would note in the file, has no place in a comparison of bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _bands(
    epochs: npt.ArrayLike,
    table: Floats,
    names: Sequence[str],
    ylabel: str,
    marks: Sequence[int | None] | None,
    mark_name: str,
    title: str,
    caption: str,
) -> Figure:
    x = np.asarray(epochs, float)
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    for i, (name, arm) in enumerate(zip(names, table, strict=True)):
        mean, half, n = t_interval(arm, axis=0)
        colour = COLOURS[i % len(COLOURS)]
        label = f"{name} ({counted(n)})"
        mark = marks[i] if marks else None
        if mark is not None:
            label += f"\nring at epoch {x[mark]:g}"
            axis.plot(x[mark], mean[mark], "o", ms=13, mfc="none", mec=colour, mew=1.8, zorder=4)
        axis.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
        axis.plot(
            x,
            mean,
            color=colour,
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4,
            # Not on every epoch of a long run, where they would hide the line.
            markevery=max(1, len(x) // 20),
            label=label,
        )
    axis.set_ylabel(ylabel)
    epoch_axis(axis, x)
    ring = f"\nring: {mark_name}" if marks else ""
    legend_beside(figure, f"mean and 95% t interval{ring}")
    return figure


def _whole_members(values: npt.ArrayLike) -> Floats:
    """Return values float[arms, seeds, epochs]; members not finite at some epoch are all NaN."""
    table = np.asarray(values, float)
    return np.where(np.isfinite(table).all(axis=-1, keepdims=True), table, np.nan)


def _lowest(arm: Floats) -> int | None:
    mean, _, _ = t_interval(arm, axis=0)
    return None if np.isnan(mean).all() else int(np.nanargmin(mean))
