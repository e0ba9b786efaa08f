"""Figures: pure functions from numbers to a matplotlib Figure.

A function named `draw_*` draws into axes that it is given, so that a chart looks the same in a PNG and in
the report.
"""

from cnnjax.plots import backend  # noqa: F401 (imports matplotlib, before all others do)
from cnnjax.plots.curves import (
    Axes,
    Figure,
    confusion_matrix,
    draw_bands,
    draw_differences,
    draw_history,
    row_labels,
    training_curves,
)
from cnnjax.plots.style import attempt, png

__all__ = [
    "Axes",
    "Figure",
    "attempt",
    "confusion_matrix",
    "draw_bands",
    "draw_differences",
    "draw_history",
    "png",
    "row_labels",
    "training_curves",
]
