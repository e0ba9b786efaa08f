"""What numbers show: paired statistics, intervals, confusions. Pure NumPy."""

from cnnjax.stats.intervals import prediction_interval, t_interval, wilson_interval
from cnnjax.stats.paired import (
    FLIPS,
    Arm,
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
    "Arm",
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
