"""Paired statistics, confidence intervals and confused classes, in NumPy and SciPy."""

from cnnjax.stats.paired import ArmSummary, Contrast, Summary, conclusion, summarise

__all__ = ["ArmSummary", "Contrast", "Summary", "conclusion", "summarise"]
