"""Pairs of classes that networks confuse, over seeds, and the images that they misclassify."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from cnnjax.shapes import Float32, Int, Int32, UInt


class Predictions(NamedTuple):
    """Predictions of networks on the test images after their last epoch."""

    labels: UInt[np.ndarray, "*seeds n"]  # the most probable class; in 8 bits if they hold all classes
    probability: Float32[np.ndarray, "*seeds n"]  # of that class

    @classmethod
    def of(cls, logits: Float32[np.ndarray, "seeds n classes"]) -> "Predictions":
        """Take the most probable class."""
        best = logits.max(axis=-1, keepdims=True)
        probability = 1 / np.exp(logits - best).sum(axis=-1)
        smallest = np.min_scalar_type(logits.shape[-1] - 1)
        return cls(logits.argmax(axis=-1).astype(smallest), probability.astype(np.float32))


class Pair(NamedTuple):
    """Two classes; `counts`: images of `a` classified as `b`, and of `b` as `a`."""

    a: int
    b: int
    counts: Int[np.ndarray, "seeds 2"]

    @property
    def per_seed(self) -> Int[np.ndarray, "seeds"]:
        """Confused images in both directions."""
        return self.counts.sum(axis=1)


class Mistake(NamedTuple):
    """One image that networks misclassify as the same class."""

    image: int  # index in the data set
    true: int
    predicted: int
    probability: float  # of the predicted class, mean over the networks that predict it
    seeds: int  # number of those networks


def confused_pairs(labels: Int32[np.ndarray, "n"], predictions: Predictions, classes: int = 10) -> list[Pair]:
    """Return all pairs of classes, most confused first; ties are in the order of the classes.

    `labels` are the true ones, `predictions` those of one arm.
    """
    cells = labels.astype(np.int64) * classes + predictions.labels
    counts = np.stack([np.bincount(row, minlength=classes**2).reshape(classes, classes) for row in cells])
    pairs = [Pair(a, b, counts[:, (a, b), (b, a)]) for a, b in combinations(range(classes), 2)]
    return sorted(pairs, key=lambda pair: -int(pair.counts.sum()))


def worst_mistakes(
    labels: Int32[np.ndarray, "n"], predictions: Predictions, pair: Pair, count: int
) -> list[Mistake]:
    """Return the images of a pair that most networks confuse; ties go to the higher probability."""
    mistakes = []
    for true, predicted in ((pair.a, pair.b), (pair.b, pair.a)):
        wrong = (predictions.labels == predicted) & (labels == true)[None]
        for image in np.flatnonzero(wrong.any(axis=0)):
            seeds = wrong[:, image]
            probability = float(predictions.probability[seeds, image].mean())
            mistakes.append(Mistake(int(image), true, predicted, probability, int(seeds.sum())))
    return sorted(mistakes, key=lambda m: (-m.seeds, -m.probability, m.image))[:count]
