"""The figures of the paper, with intervals where the paper has points.

`title` is a line above the figure, `caption` a line below it for n and the protocol.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from cnnjax.plots import Figure
from cnnjax.plots.style import COLOURS, counted, frame, legend_below, line_style, mean_label
from cnnjax.shapes import Float
from cnnjax.stats.intervals import t_interval

Lines = Mapping[str, tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points seeds"]]]
"""By label, numbers and the test errors at them, in percent."""

MARKED = 12
"""With more points, a line has no markers, and a logarithmic axis only round numbers."""


def error_lines(
    lines: Lines, xlabel: str, *, log: bool = False, title: str = "", caption: str = ""
) -> Figure:
    """Draw mean test errors against numbers, with their 95% t intervals as bands.

    The axis of the errors is logarithmic if they span more than a factor of 10.
    """
    figure, (axis,) = frame(8.4, 4.6, title, caption)
    halves, counts = [], []
    for i, (label, (x, errors)) in enumerate(lines.items()):
        mean, half, n = t_interval(errors)
        look, markersize = line_style(i), 4 if len(x) <= MARKED else 0
        axis.fill_between(x, mean - half, mean + half, color=look["color"], alpha=0.2, linewidth=0)
        axis.plot(x, mean, **look, markersize=markersize, label=label)
        halves.append(half)
        counts.append(n)
    if log:
        axis.set_xscale("log")
        numbers = np.unique(np.concatenate([x for x, _ in lines.values()]).astype(int))
        if len(numbers) > MARKED:
            rounded = np.outer(10 ** np.arange(10), (1, 2, 5)).ravel()
            numbers = rounded[(numbers[0] <= rounded) & (rounded <= numbers[-1])]
        axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axis.set_xticks([], minor=True)
    low, high = (bound([bound(errors) for _, errors in lines.values()]) for bound in (np.nanmin, np.nanmax))
    if high > 10 * low > 0:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    axis.set(xlabel=xlabel, ylabel="test error, %")
    legend_below(figure, f"{mean_label(np.concatenate(halves))} ({counted(np.concatenate(counts))})")
    return figure


def beside_paper(
    errors: Mapping[str, Float[np.ndarray, "seeds"]],
    published: Mapping[str, float],
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw the test errors of each arm in percent, a row an arm, and the published ones."""
    figure, (axis,) = frame(8.4, 1.6 + 0.4 * len(errors), title, caption)
    rows, values = np.arange(len(errors)), np.stack(list(errors.values()))
    mean, half, n = t_interval(values)
    axis.plot(
        values, np.broadcast_to(rows[:, None], values.shape), ".", color=COLOURS[0], markersize=4, alpha=0.5
    )
    label = f"{mean_label(half)} ({counted(n)})"
    axis.errorbar(mean, rows, xerr=half, fmt="o", color=COLOURS[0], capsize=4, label=label)
    theirs = np.array([published.get(arm, np.nan) for arm in errors])
    if np.isfinite(theirs).any():
        axis.plot(theirs, rows, "D", color=COLOURS[1], label="published")
    axis.set_yticks(rows, list(errors))
    axis.set(xlabel="test error, %", ylim=(len(errors) - 0.5, -0.5))
    legend_below(figure)
    return figure
