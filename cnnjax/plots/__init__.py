"""Figures: pure functions from numbers to a matplotlib Figure."""

from cnnjax.plots.curves import (
    Figure,
    confusion_matrix,
    final_vs_rate,
    generalisation_gap,
    metric_bands,
    png,
    training_curves,
)

__all__ = [
    "Figure",
    "confusion_matrix",
    "final_vs_rate",
    "generalisation_gap",
    "metric_bands",
    "png",
    "training_curves",
]
