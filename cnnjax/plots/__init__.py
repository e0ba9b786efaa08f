"""Figures: pure functions from numbers to a matplotlib Figure.

A function named `draw_*` draws into axes that it is given, so that a chart looks the same in a PNG and in
the report.
"""

from cnnjax.plots.curves import (
    Figure,
    confusion_matrix,
    draw_bands,
    draw_differences,
    draw_history,
    training_curves,
)
from cnnjax.plots.style import png

__all__ = [
    "Figure",
    "confusion_matrix",
    "draw_bands",
    "draw_differences",
    "draw_history",
    "png",
    "training_curves",
]
