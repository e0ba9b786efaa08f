"""Paired statistics, confidence intervals, power and confused classes, in NumPy and SciPy."""

from cnnjax.stats.contrasts import Contrast
from cnnjax.stats.paired import ArmSummary, Summary, summarise, summarise_together
from cnnjax.stats.sentences import conclusion

__all__ = ["ArmSummary", "Contrast", "Summary", "conclusion", "summarise", "summarise_together"]
