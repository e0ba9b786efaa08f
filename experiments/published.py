"""Published values beside ours: the prediction interval of one more run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from cnnjax.shapes import Float, Floats
from cnnjax.stats.intervals import FEWEST


def prediction_interval(
    values: Float[np.ndarray, "runs ..."], images: int | None = None
) -> tuple[Floats, Floats]:
    """Return the 95% prediction interval (low, high) for one more run; NaN below four values.

    It is mean -+ t(0.975, f) sqrt(u + v), clipped to what is possible, with u = sd^2 (1 + 1/n). Only u is
    estimated, which gives f = (n - 1) (1 + v/u)^2 degrees of freedom (Satterthwaite 1946). For normal values
    it contains the next one with probability 0.95 if v = 0 (Hahn and Meeker 1991, chapter 4), and otherwise
    with 0.94 to 0.95 by simulation.

    Args:
        values: of our runs.
        images: for accuracies, the number of images that each is a mean over. The other run was measured on
            as many other images of the same kind, hence v = 2 mean (1 - mean) / images: the binomial variance
            of our images, which all our runs share, and of theirs. Without it v = 0.
    """
    n = len(values)
    mean = values.mean(axis=0)
    ours = values.var(axis=0, ddof=1) * (1 + 1 / n)
    other = 0.0 if images is None else 2 * mean * (1 - mean) / images
    freedom = (n - 1) * (1 + other / np.maximum(ours, 1e-30)) ** 2  # runs may be equal
    scale = stats.t.ppf(0.975, freedom) if n >= FEWEST else math.nan
    half = scale * np.sqrt(ours + other)
    return np.maximum(mean - half, 0), np.minimum(mean + half, math.inf if images is None else 1.0)


class Comparison(NamedTuple):
    """A published value and ours; `low` to `high` is their 95% prediction interval."""

    measure: str
    published: float | None
    ours: Float[np.ndarray, "seeds"]
    low: float
    high: float

    @property
    def within(self) -> bool | None:
        """Whether the published value lies in the interval; None if there is no value or no interval."""
        if self.published is None or math.isnan(self.low):
            return None
        return bool(self.low <= self.published <= self.high)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of summary.json."""
        return {
            "published": self.published,
            "n": len(self.ours),
            "mean": float(self.ours.mean()),
            "sd": float(self.ours.std(ddof=1)),
            "low": None if math.isnan(self.low) else self.low,
            "high": None if math.isnan(self.high) else self.high,
            "within": self.within,
        }


def compare(
    ours: Mapping[str, Float[np.ndarray, "seeds epochs"]],
    published: Sequence[Mapping[str, float]] | None,
    images: tuple[int, int],
) -> list[Comparison]:
    """Compare final accuracy and loss, the best validation loss and its (first) epoch.

    Args:
        ours: loss, accuracy, val_loss and val_accuracy, finite, of two seeds or more.
        published: a row with these metrics for each epoch.
        images: numbers of training and of validation images.
    """
    log = None if published is None else {key: np.array([row[key] for row in published]) for key in ours}
    measures = {
        "final training accuracy": lambda v: v["accuracy"][..., -1],
        "final training loss": lambda v: v["loss"][..., -1],
        "final validation accuracy": lambda v: v["val_accuracy"][..., -1],
        "final validation loss": lambda v: v["val_loss"][..., -1],
        "best validation loss": lambda v: v["val_loss"].min(axis=-1),
        "epoch of the best": lambda v: v["val_loss"].argmin(axis=-1) + 1.0,
    }
    comparisons = []
    for name, measure in measures.items():
        values = measure(ours)
        low, high = prediction_interval(values, images_of(name, images))
        theirs = None if log is None else float(measure(log))
        comparisons.append(Comparison(name, theirs, values, float(low), float(high)))
    return comparisons


def images_of(measure: str, images: tuple[int, int]) -> int | None:
    """Return over how many training or validation images a measure is a mean, if it is an accuracy."""
    return images["val" in measure] if "accuracy" in measure else None
