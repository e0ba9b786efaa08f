"""One published run beside many of ours: is it one that ours could have been?"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnnjax.stats.intervals import prediction_interval

Rows = Sequence[Mapping[str, float]]


class Comparison(NamedTuple):
    """A published value beside ours, float[seeds]; `low` to `high` is the 95% prediction interval."""

    measure: str
    published: float | None
    ours: np.ndarray
    low: float
    high: float

    @property
    def within(self) -> bool | None:
        """Whether the published run lies within the spread of ours; None where none was published."""
        return None if self.published is None else bool(self.low <= self.published <= self.high)


def compare(values: Mapping[str, np.ndarray], published: Rows | None) -> list[Comparison]:
    """Final accuracy and loss, best validation loss and its epoch (the first of equals), as `Comparison`s.

    `values[metric]` is float[seeds, epochs] for loss, accuracy, val_loss, val_accuracy, all finite, with two
    seeds or more; `published` are rows with these keys for as many epochs.
    """
    log = None if published is None else {key: np.array([row[key] for row in published]) for key in values}
    measures = {
        "final training accuracy": lambda v: v["accuracy"][..., -1],
        "final training loss": lambda v: v["loss"][..., -1],
        "final validation accuracy": lambda v: v["val_accuracy"][..., -1],
        "final validation loss": lambda v: v["val_loss"][..., -1],
        "best validation loss": lambda v: v["val_loss"].min(axis=-1),
        "epoch of the best": lambda v: v["val_loss"].argmin(axis=-1) + 1.0,
    }
    compared = []
    for name, of in measures.items():
        ours = of(values)
        low, high = prediction_interval(ours, 1.0 if "accuracy" in name else math.inf)
        theirs = None if log is None else float(of(log))
        compared.append(Comparison(name, theirs, ours, float(low), float(high)))
    return compared
