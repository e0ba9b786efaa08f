"""Paired statistics, confidence intervals, power and confused classes, in NumPy and SciPy."""

from cnnjax.stats.contrasts import Contrast, compare
from cnnjax.stats.families import ALPHA
from cnnjax.stats.paired import ArmSummary, Summary, summarise, summarise_together
from cnnjax.stats.sentences import REHEARSAL, conclusion

__all__ = [
    "ALPHA",
    "REHEARSAL",
    "ArmSummary",
    "Contrast",
    "Summary",
    "compare",
    "conclusion",
    "summarise",
    "summarise_together",
]
