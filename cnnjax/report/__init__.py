"""What an experiment or a run reports: progress, tables, sentences, figures; report.html writes the page."""

from cnnjax.report.progress import MemberProgress
from cnnjax.report.tables import (
    confusion_figure,
    confusion_table,
    console,
    draw,
    print_ablation,
    print_confusions,
    print_table,
    spread,
    worst_pairs,
)

__all__ = [
    "MemberProgress",
    "confusion_figure",
    "confusion_table",
    "console",
    "draw",
    "print_ablation",
    "print_confusions",
    "print_table",
    "spread",
    "worst_pairs",
]
