"""Colours, frames and legends, shared by all figures.

The colours are those of Okabe and Ito (2008), distinguishable with all common kinds of colour blindness.
Each arm also has its own line style and marker, so the figures survive black-and-white print.
pyplot and its global state are not used.
"""

import io
import textwrap
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnnjax.errors import one_line
from cnnjax.shapes import Floats, Int

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
GREY = "#808080"
DPI = 200
HANDLE = 7
"""Characters that fit in the room of a line and its gap in a legend."""
HALO = (withStroke(linewidth=3, foreground="white"),)
"""Path effects of text, so that no line strikes through it."""


def png(figure: Figure) -> bytes:
    """Render a figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # Without this, matplotlib writes its version into the file.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def attempt(name: str, draw: Callable[[], Figure], announce: Callable[[str], None] = print) -> bytes | None:
    """Render a figure as PNG; a failure is announced in one line: drawing must not cost a measurement.

    Args:
        name: of the figure's file.
        draw: makes the figure.
        announce: called with the line if drawing fails. What fails is often a setting of the user's own
            matplotlibrc, such as LaTeX that is not installed.

    Returns:
        The PNG file, or None if drawing failed.
    """
    try:
        return png(draw())
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        announce(f"{name} cannot be drawn, but the numbers are complete ({why})")
        return None


class _Shown(Figure):
    """Shows itself in a notebook, where others need pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def frame(
    width: float, height: float, title: str, caption: str, panels: int = 1, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels, row by row, with a title above and a caption below.

    A width of 5 inches is legible in a column of 3.3 inches, the usual one of a paper.
    """
    figure = _Shown(figsize=(width, height), dpi=DPI, layout="constrained")
    body: Any = figure.subfigures()  # between it and the caption there is room for a legend
    axes = [body.add_subplot(rows, panels, i + 1) for i in range(rows * panels)]
    for axis in axes:
        axis.grid(color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    write_around(figure, title, caption)
    return figure, axes


def write_around(figure: Figure, title: str, caption: str) -> None:
    """Write a title above a figure and a caption below it, in lines that fit."""
    width = figure.get_figwidth()
    # About 13 characters of the title's size to an inch, 15 of the caption's.
    if title:
        lines = (textwrap.fill(line, int(13 * width)) for line in title.split("\n"))
        figure.suptitle("\n".join(lines), fontsize=11)
    if caption:
        figure.supxlabel(textwrap.fill(caption, int(15 * width)), fontsize=8, color="#444444")


def metric_axis(axis: Axis, label: str) -> None:
    """Label the x or y axis with a metric; fractions of images are in percent."""
    axis.set_label_text(label)
    if is_share(label):
        axis.set_major_formatter(percent_formatter("%"))


def is_share(metric: str) -> bool:
    """Whether a metric is a share of images, which is shown in percent and its differences in points."""
    return "accuracy" in metric or "error" in metric


def percent_formatter(sign: str) -> FuncFormatter:
    """Format fractions in percent, with as few digits as they need."""
    return FuncFormatter(lambda share, _: f"{100 * share:.6g}{sign}")


def epoch_axis(axis: Axes, epochs: Collection[float]) -> None:
    """Label x as epochs, with ticks on whole numbers."""
    axis.set(xlabel="epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def legend_below(figure: Figure, heading: str = "") -> None:
    """Put one legend of all axes below them, where it hides no data."""
    (body,) = figure.subfigs
    named: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    labels = [textwrap.fill(label, int(13 * figure.get_figwidth()) - HANDLE) for label in named]
    look: dict[str, Any] = {"title": heading, "title_fontsize": 9, "fontsize": 9, "frameon": False}
    for columns in range(len(labels), 0, -1):
        legend = body.legend(named.values(), labels, loc="outside lower center", ncols=columns, **look)
        if legend.get_window_extent().width < figure.bbox.width:
            break
        if columns > 1:
            legend.remove()


def line_style(i: int, linestyle: str = "") -> dict[str, Any]:
    """Return the colour, line style (unless it is given) and marker of the i-th arm."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": linestyle or LINES[i % len(LINES)],
        "marker": MARKERS[i % len(MARKERS)],
    }


def finite(values: Floats) -> Floats:
    """Return the values, with NaN for those that are not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def counted(n: Int[np.ndarray, "..."]) -> str:
    """Format sample sizes: "n=5", or "n=3 to 5" where they differ."""
    low, high = int(n.min()), int(n.max())
    return f"n={high}" if low == high else f"n={low} to {high}"


def mean_label(half: Floats) -> str:
    """Say in a legend what is drawn: means, and their intervals where there are any."""
    return "mean and 95% t interval" if np.isfinite(half).any() else "mean (too few seeds for an interval)"
