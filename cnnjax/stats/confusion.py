"""Pairs of classes that networks confuse, over seeds, and the images that they misclassify."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Predictions(NamedTuple):
    """Predictions of networks on the test images after their last epoch."""

    labels: np.ndarray  # u8[seeds, n], the most probable class
    probability: np.ndarray  # f32[seeds, n], of that class

    @classmethod
    def of(cls, logits: np.ndarray) -> "Predictions":
        """Take the most probable class of logits f32[seeds, n, classes]."""
        best = logits.max(axis=-1, keepdims=True)
        probability = 1 / np.exp(logits - best).sum(axis=-1)
        return cls(logits.argmax(axis=-1).astype(np.uint8), probability.astype(np.float32))


class Pair(NamedTuple):
    """Two classes; `counts` i64[seeds, 2]: images of `a` classified as `b`, and of `b` as `a`."""

    a: int
    b: int
    counts: npt.NDArray[np.int64]

    @property
    def per_seed(self) -> npt.NDArray[np.int64]:
        """i64[seeds]: confused images in both directions."""
        return self.counts.sum(axis=1)


class Mistake(NamedTuple):
    """One image that networks misclassify as the same class."""

    image: int  # index in the data set
    true: int
    predicted: int
    probability: float  # of the predicted class, mean over the networks that predict it
    seeds: int  # number of those networks


def confused_pairs(labels: np.ndarray, predictions: Predictions, classes: int = 10) -> list[Pair]:
    """Return all pairs of classes, most confused first; ties are in the order of the classes.

    `labels` i32[n] are the true ones, `predictions` those of one arm.
    """
    cells = labels.astype(np.int64) * classes + predictions.labels
    counts = np.stack([np.bincount(row, minlength=classes**2).reshape(classes, classes) for row in cells])
    pairs = [Pair(a, b, counts[:, (a, b), (b, a)]) for a, b in combinations(range(classes), 2)]
    return sorted(pairs, key=lambda pair: -int(pair.counts.sum()))


def worst_mistakes(labels: np.ndarray, predictions: Predictions, pair: Pair, count: int) -> list[Mistake]:
    """Return the images of a pair that most networks confuse; ties go to the higher probability."""
    mistakes = []
    for true, predicted in ((pair.a, pair.b), (pair.b, pair.a)):
        wrong = (predictions.labels == predicted) & (labels == true)[None]
        for image in np.flatnonzero(wrong.any(axis=0)):
            seeds = wrong[:, image]
            probability = float(predictions.probability[seeds, image].mean())
            mistakes.append(Mistake(int(image), true, predicted, probability, int(seeds.sum())))
    return sorted(mistakes, key=lambda m: (-m.seeds, -m.probability, m.image))[:count]


def pair_sentence(
    pairs: Sequence[Pair], a: int, b: int, images: int, names: Sequence[str] = tuple("0123456789")
) -> str:
    """Describe one of the sorted `pairs`: how often it is confused, its rank, and in which direction."""
    rank = next(i for i, pair in enumerate(pairs) if {pair.a, pair.b} == {a, b})
    pair, most, seeds = pairs[rank], pairs[0], len(pairs[0].counts)
    forth, back = pair.counts.mean(axis=0)
    who, spread, digits = "This network", "", 0
    if seeds > 1:
        who, spread, digits = "A network", f" (sd {pair.per_seed.std(ddof=1):.1f} over {seeds} seeds)", 1
    lead = (
        f"; {names[most.a]} and {names[most.b]} lead with {most.per_seed.mean():.{digits}f}" if rank else ""
    )
    first, second = names[pair.a], names[pair.b]
    return (
        f"{who} confuses {first} and {second} on {forth + back:.{digits}f} of {images:,} test images"
        f"{spread}, {_ordinal(rank + 1)} of {len(pairs)} pairs{lead}. It classifies {first} as {second} on "
        f"{forth:.{digits}f} and {second} as {first} on {back:.{digits}f}."
    )


def _ordinal(n: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    suffix = "th" if 10 < n % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return words[n - 1] if n <= len(words) else f"{n}{suffix}"
