"""What an experiment or a run reports: tables, sentences, figures; report.html writes the page."""

from cnnjax.report.tables import (
    confusion_figure,
    draw,
    print_ablation,
    print_confusions,
    spread,
)
from cnnjax.report.terminal import console, fits, print_table, say

__all__ = [
    "confusion_figure",
    "console",
    "draw",
    "fits",
    "print_ablation",
    "print_confusions",
    "print_table",
    "say",
    "spread",
]
