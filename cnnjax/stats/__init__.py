"""Paired statistics, confidence intervals and confused classes, in NumPy and SciPy."""

from cnnjax.stats.intervals import prediction_interval, t_interval, wilson_interval
from cnnjax.stats.paired import (
    FLIPS,
    ArmSummary,
    Contrast,
    Summary,
    conclusion,
    detectable_difference,
    holm,
    probability_of_improvement,
    seeds_needed,
    sign_flip_p,
    smallest_p,
    summarise,
)

__all__ = [
    "ArmSummary",
    "Contrast",
    "FLIPS",
    "Summary",
    "conclusion",
    "detectable_difference",
    "holm",
    "prediction_interval",
    "probability_of_improvement",
    "seeds_needed",
    "sign_flip_p",
    "smallest_p",
    "summarise",
    "t_interval",
    "wilson_interval",
]
