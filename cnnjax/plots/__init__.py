"""Figures: pure functions from numbers to a matplotlib Figure.

A function named `draw_*` draws into axes that it is given, so that a chart looks the same in a PNG and in
the report.
"""

from cnnjax.plots.arms import draw_differences
from cnnjax.plots.curves import (
    Figure,
    confusion_matrix,
    draw_bands,
    draw_history,
    final_vs_rate,
    generalisation_gap,
    metric_bands,
    png,
    training_curves,
)

__all__ = [
    "Figure",
    "confusion_matrix",
    "draw_bands",
    "draw_differences",
    "draw_history",
    "final_vs_rate",
    "generalisation_gap",
    "metric_bands",
    "png",
    "training_curves",
]
