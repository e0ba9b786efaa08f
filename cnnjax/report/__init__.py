"""What an experiment reports: progress, tables, sentences, figures, a page."""

from cnnjax.report.tables import (
    MemberProgress,
    ablation_table,
    confusion_figure,
    console,
    draw,
    print_table,
    spread,
    tell_ablation,
    tell_confusions,
)

__all__ = [
    "MemberProgress",
    "ablation_table",
    "confusion_figure",
    "console",
    "draw",
    "print_table",
    "spread",
    "tell_ablation",
    "tell_confusions",
]
