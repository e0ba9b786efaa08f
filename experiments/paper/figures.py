"""The figures of the paper, with bands where the paper has points."""

from collections.abc import Mapping

import numpy as np

from cnnjax.plots import Figure
from cnnjax.plots.style import COLOURS, GREY, counted, frame, legend_below, line_style, mean_label
from cnnjax.shapes import Float
from cnnjax.stats.intervals import t_interval

Lines = Mapping[str, tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points seeds"]]]


def error_lines(
    lines: Lines,
    xlabel: str,
    *,
    log: bool = False,
    levels: Mapping[str, float] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw mean test errors against numbers, with their 95% t intervals as bands.

    Args:
        lines: by label, the numbers and the errors in percent.
        xlabel: what the numbers are.
        log: the numbers on a logarithmic axis.
        levels: published errors in percent, by label, as horizontal lines.
        title: above the figure.
        caption: below it.
    """
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    halves, counts = [], []
    for i, (label, (x, errors)) in enumerate(lines.items()):
        mean, half, n = t_interval(errors)
        axis.fill_between(
            x, mean - half, mean + half, color=COLOURS[i % len(COLOURS)], alpha=0.2, linewidth=0
        )
        axis.plot(x, mean, **line_style(i), markersize=4, label=label)
        halves.append(half)
        counts.append(n)
    for i, (label, level) in enumerate((levels or {}).items()):
        axis.axhline(level, color=GREY, linestyle=("--", ":")[i % 2], label=label)
    if log:
        axis.set_xscale("log")
    axis.set(xlabel=xlabel, ylabel="test error, %")
    legend_below(figure, f"{mean_label(np.concatenate(halves))} ({counted(np.concatenate(counts))})")
    return figure
