"""Paired statistics, confidence intervals and confused classes, in NumPy and SciPy."""

from cnnjax.stats.paired import ArmSummary, Contrast, Summary, summarise
from cnnjax.stats.sentences import conclusion

__all__ = ["ArmSummary", "Contrast", "Summary", "conclusion", "summarise"]
