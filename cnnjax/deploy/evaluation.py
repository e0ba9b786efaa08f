"""Loss and accuracy of a trained run on a split, with confidence intervals."""

from typing import NamedTuple

import numpy as np

from cnnjax.data import Dataset, Loaded, training_split
from cnnjax.deploy.predict import Trained, evaluated
from cnnjax.errors import ArgumentError
from cnnjax.runs.train_config import TrainConfig
from cnnjax.shapes import Bool
from cnnjax.stats.intervals import wilson_interval


class Share(NamedTuple):
    """The number of n images that are classified correctly, with the 95% Wilson interval of the accuracy.

    The interval covers other images from the same source for this network, not other seeds.
    """

    right: int
    n: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The fraction classified correctly."""
        return self.right / self.n


class Scores(NamedTuple):
    """Loss and accuracy on a whole data set."""

    loss: float  # mean, nats
    total: Share
    classes: dict[int, Share]  # without classes that have no images
    right: Bool[np.ndarray, "n"]  # whether each image is classified correctly


def share(right: int, n: int) -> Share:
    """Return the share of `right` in `n` >= 1 images with its interval."""
    return Share(right, n, *wilson_interval(right, n))


def part(loaded: Loaded, config: TrainConfig, split: str) -> Dataset:
    """Select the "train", "validation" or "test" images of a run; "train" is the part it was trained on.

    Raises:
        ArgumentError: the run trained on all training images and has no validation split.
    """
    if split == "test":
        return loaded.test
    if split == "validation" and config.train_split == "all":
        raise ArgumentError(
            "this run trained on all training images and has no validation split; use --split test"
        )
    train, val = training_split(loaded, config.train_split)
    return train if split == "train" else val


def scores(network: Trained, dataset: Dataset) -> Scores:
    """Evaluate a network on all images of `dataset`, without dropout."""
    evaluation = evaluated(network, dataset)
    right = np.argmax(evaluation.logits, axis=1) == dataset.labels

    def share_of(selected: np.ndarray) -> Share:
        return share(int(right[selected].sum()), int(selected.sum()))

    classes = {int(label): share_of(dataset.labels == label) for label in np.unique(dataset.labels)}
    return Scores(evaluation.loss, share(int(right.sum()), len(right)), classes, right)
