"""What an experiment or a run reports: tables, sentences, figures; report.html writes the page."""

from cnnjax.report.tables import (
    confusion_figure,
    console,
    draw,
    print_ablation,
    print_confusions,
    print_table,
    spread,
)

__all__ = [
    "confusion_figure",
    "console",
    "draw",
    "print_ablation",
    "print_confusions",
    "print_table",
    "spread",
]
