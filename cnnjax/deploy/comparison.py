"""Trained runs beside each other: their differing settings, and their accuracies on the same images."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data import Dataset
from cnnjax.deploy.evaluation import Scores, scores
from cnnjax.deploy.predict import Trained
from cnnjax.stats.intervals import t_interval


class Difference(NamedTuple):
    """An accuracy minus that of the first network, paired by image, with its 95% interval; NaN without pairs.

    The interval covers other images from the same source for these two networks, not other seeds.
    """

    mean: float
    low: float
    high: float


def differing(networks: Sequence[Trained]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs, by name, with a value for each run.

    Besides the configuration, these are the epochs behind the network and the contents of the data.
    """
    settings: list[Mapping[str, Any]] = []
    for network in networks:
        config = asdict(network.config)
        custom = {f"{name} (in Python)": text for name, text in config.pop("custom").items()}
        data = hashlib.sha256("".join(sorted(network.sha256.values())).encode()).hexdigest()
        settings.append({**config, **custom, "trained epochs": network.epochs, "data": data[:12]})
    names = list(dict.fromkeys(name for each in settings for name in each))
    values = {name: [each.get(name) for each in settings] for name in names}
    return {name: of for name, of in values.items() if any(value != of[0] for value in of)}


def compared(networks: Sequence[Trained], images: Sequence[Dataset]) -> Iterator[tuple[Scores, Difference]]:
    """Evaluate each network on its images; where they are those of the first, compare it with that one."""
    first, none = scores(networks[0], images[0]), Difference(math.nan, math.nan, math.nan)
    yield first, none
    for network, own in zip(networks[1:], images[1:], strict=True):
        evaluated = scores(network, own)
        yield evaluated, _difference(evaluated, first) if _same(own, images[0]) else none


def _same(one: Dataset, other: Dataset) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


def _difference(evaluated: Scores, reference: Scores) -> Difference:
    apart = evaluated.right.astype(np.float64) - reference.right
    mean, half, _ = t_interval(apart)
    return Difference(float(mean), float(mean - half), float(mean + half))
