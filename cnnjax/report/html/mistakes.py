"""Confused pairs of classes with the images behind them, and the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.data import Dataset
from cnnjax.experiment.results import Predictions
from cnnjax.report import spread
from cnnjax.report.html.encoding import ink_uri
from cnnjax.stats.confusion import Pair, confused_pairs, worst_mistakes

PAIRS, IMAGES = 4, 6


def pairs(predictions: Predictions, test: Dataset, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most confused pairs, each with the images that most networks get wrong."""
    most = confused_pairs(test.labels, predictions, len(classes))[:PAIRS]
    return [_pair(pair, predictions, test, classes) for pair in most if pair.counts.any()]


def by_arm(
    predictions: Mapping[str, Predictions], test: Dataset, classes: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return a table: the first arm's most confused pairs, and how often each arm confuses them."""
    of_arms = {arm: confused_pairs(test.labels, of, len(classes)) for arm, of in predictions.items()}
    heads = ["pair", *(f"{arm} (n = {len(of[0].counts)})" for arm, of in of_arms.items())]
    rows = []
    for pair in next(iter(of_arms.values()))[:PAIRS]:
        same = (next(p for p in of if (p.a, p.b) == (pair.a, pair.b)) for of in of_arms.values())
        counts = [spread(p.per_seed.astype(float), int(len(p.counts) > 1)) for p in same]
        rows.append([f"{classes[pair.a]} and {classes[pair.b]}", *counts])
    return heads, rows


def matrix(counts: np.ndarray) -> list[list[tuple[int, str]]]:
    """Return counts i64[classes, classes] as rows of (count, shade): 0 to 4 for errors, else "right"."""
    most = max(int((counts - np.diag(np.diag(counts))).max()), 1)
    return [
        [(int(n), "right" if row == column else str(-(-4 * int(n) // most))) for column, n in enumerate(of)]
        for row, of in enumerate(counts)
    ]


def _pair(pair: Pair, predictions: Predictions, test: Dataset, classes: Sequence[str]) -> dict[str, Any]:
    seeds, count = len(pair.counts), float(pair.per_seed.mean())
    images = []
    for mistake in worst_mistakes(test.labels, predictions, pair, IMAGES):
        image, true, predicted = test.images[mistake.image], classes[mistake.true], classes[mistake.predicted]
        images.append(
            {
                "uri": ink_uri(image),
                "alt": f"test image {mistake.image}: {true}, classified as {predicted}",
                "height": image.shape[0],
                "width": image.shape[1],
                "caption": f"{true} → {predicted}",
                "detail": f"{mistake.probability:.2f}" + (f", {mistake.seeds}/{seeds}" if seeds > 1 else ""),
            }
        )
    return {
        "names": f"{classes[pair.a]} and {classes[pair.b]}",
        "count": f"{count:.1f} images per network" if seeds > 1 else f"{count:.0f} image{'s' * (count != 1)}",
        "images": images,
    }
