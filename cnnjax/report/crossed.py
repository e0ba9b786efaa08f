"""Differences in test accuracy over seeds and images at once, from the stored predictions."""

from typing import Any

import numpy as np

from cnnjax.data import Dataset
from cnnjax.experiment.results import Results
from cnnjax.stats.contrasts import plain
from cnnjax.stats.crossed import Crossed, crossed
from cnnjax.stats.intervals import FEWEST
from cnnjax.stats.sentences import REHEARSAL, enumerated


def crossed_record(results: Results, test: Dataset, *, rehearsal: bool) -> dict[str, Any]:
    """Return each arm's difference in test accuracy to the first for new seeds and images, and a sentence.

    Seeds that diverged in either arm are left out. Without stored predictions of every seed, or with too few
    seeds for an interval, the record is empty. The sentence of a `rehearsal` says that it is one.
    """
    found = _differences(results, test)
    if not found:
        return {}

    def described(arm: str, c: Crossed) -> str:
        difference, low, high, seeds, images = (100 * float(value) for value in c)
        errors = f"standard error {seeds:.2f} from seeds, {images:.2f} from images"
        return f"{difference:+.2f} points for {arm} (95% interval {low:+.2f} to {high:+.2f}; {errors})"

    differences = enumerated(described(arm, c) for arm, c in found.items())
    where = f"the difference in test accuracy to {results.arms[0]} is {differences}"
    banner = f"{REHEARSAL}. " if rehearsal else ""
    alone = ", each by itself, without correction" * (len(found) > 1)
    sentence = f"{banner}For new seeds and new images of this kind, {where}{alone}."
    values = {arm: plain({k: float(v) for k, v in c._asdict().items()}) for arm, c in found.items()}
    return {"over_seeds_and_images": sentence, "crossed": values}


def _differences(results: Results, test: Dataset) -> dict[str, Crossed]:
    first, *others = results.arms
    finite = np.isfinite(results.final("test_accuracy"))
    right = {
        arm: (said.labels == test.labels[None]).astype(float)
        for arm, said in results.predictions.items()
        if len(said.labels) == len(results.seeds)
    }
    found = {}
    for i, arm in enumerate(others, 1):
        both = finite[0] & finite[i]
        if first in right and arm in right and both.sum() >= FEWEST:
            found[arm] = crossed((right[arm] - right[first])[both])
    return found
