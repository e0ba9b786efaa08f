"""Which classes networks take for each other, over seeds, and which images are behind it."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Predictions(NamedTuple):
    """What networks say of the test images after their last epoch."""

    labels: np.ndarray  # u8[seeds, n], the likeliest class
    probability: np.ndarray  # f32[seeds, n], of that class

    @classmethod
    def of(cls, logits: np.ndarray) -> "Predictions":
        """From logits f32[seeds, n, classes]."""
        best = logits.max(axis=-1, keepdims=True)
        probability = 1 / np.exp(logits - best).sum(axis=-1)
        return cls(logits.argmax(axis=-1).astype(np.uint8), probability.astype(np.float32))


class Pair(NamedTuple):
    """Two classes; `counts` i64[seeds, 2]: images of `a` taken for `b`, and of `b` taken for `a`."""

    a: int
    b: int
    counts: npt.NDArray[np.int64]

    @property
    def per_seed(self) -> npt.NDArray[np.int64]:
        """i64[seeds]: confused images, both ways."""
        return self.counts.sum(axis=1)


class Mistake(NamedTuple):
    """One image that networks get wrong the same way."""

    image: int  # its place in the data set
    true: int
    predicted: int
    probability: float  # of the predicted class, mean over the networks that predict it
    seeds: int  # how many do


def confused_pairs(labels: np.ndarray, predictions: Predictions, classes: int = 10) -> list[Pair]:
    """All pairs of classes, the one most often confused first; of equals the one of lower classes.

    `labels` i32[n] are true, `predictions` those of one arm.
    """
    cells = labels.astype(np.int64) * classes + predictions.labels
    counts = np.stack([np.bincount(row, minlength=classes**2).reshape(classes, classes) for row in cells])
    pairs = [Pair(a, b, counts[:, (a, b), (b, a)]) for a, b in combinations(range(classes), 2)]
    return sorted(pairs, key=lambda pair: -int(pair.counts.sum()))


def worst_mistakes(labels: np.ndarray, predictions: Predictions, pair: Pair, count: int) -> list[Mistake]:
    """The images of a pair that most networks confuse; of equals the one they are surest of."""
    mistakes = []
    for true, predicted in ((pair.a, pair.b), (pair.b, pair.a)):
        wrong = (predictions.labels == predicted) & (labels == true)[None]
        for image in np.flatnonzero(wrong.any(axis=0)):
            who = wrong[:, image]
            sure = float(predictions.probability[who, image].mean())
            mistakes.append(Mistake(int(image), true, predicted, sure, int(who.sum())))
    return sorted(mistakes, key=lambda m: (-m.seeds, -m.probability, m.image))[:count]


def pair_sentence(pairs: Sequence[Pair], a: int, b: int, images: int) -> str:
    """One sentence about a pair among `pairs`, which are in order: how often, which way, and its rank."""
    rank = next(i for i, pair in enumerate(pairs, 1) if {pair.a, pair.b} == {a, b})
    pair, first, seeds = pairs[rank - 1], pairs[0], len(pairs[0].counts)
    digits = 1 if seeds > 1 else 0
    one, other = pair.counts.mean(axis=0)
    who = "this network confuses"
    spread = ""
    if seeds > 1:
        who, spread = "a network confuses", f" (sd {pair.per_seed.std(ddof=1):.1f} over {seeds} seeds)"
    place = "no pair is confused more"
    if rank > 1:
        most = f"{first.a} and {first.b} being first with {first.per_seed.mean():.{digits}f}"
        place = f"that is place {rank} of {len(pairs)}, {most}"
    return (
        f"Of {images:,} test images {who} {pair.a} and {pair.b} in {one + other:.{digits}f}{spread}: "
        f"{pair.a} taken for {pair.b} in {one:.{digits}f}, {pair.b} for {pair.a} in {other:.{digits}f}; "
        f"{place}."
    )
