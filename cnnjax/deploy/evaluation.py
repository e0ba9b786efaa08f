"""How well a trained run does on a split, with the intervals that the number of its images allows."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from cnnjax.config import TrainConfig
from cnnjax.data import Dataset, Loaded, training_split
from cnnjax.deploy.predict import Trained
from cnnjax.errors import ArgumentError
from cnnjax.runs import programs

SPLITS = ("train", "validation", "test")


class Share(NamedTuple):
    """How many of n images are right, and the Wilson interval of the probability behind that."""

    right: int
    n: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The fraction that is right."""
        return self.right / self.n


class Scores(NamedTuple):
    """A whole split under one set of parameters."""

    loss: float  # mean, nats
    total: Share
    classes: dict[int, Share]  # by class, those with images


def share(right: int, n: int, confidence: float = 0.95) -> Share:
    """`right` of `n` >= 1, with Wilson's score interval (1927).

    It tells what another n images from the same source might give, for this very network; not what another
    seed would have given.
    """
    interval = binomtest(right, n).proportion_ci(confidence, method="wilson")
    return Share(right, n, float(interval.low), float(interval.high))


def part(loaded: Loaded, config: TrainConfig, split: str) -> Dataset:
    """The images of a run's split, one of `SPLITS`: the train split is what it learnt from.

    Raises:
        ArgumentError: a run that learnt from all training images has no validation split.
    """
    if split == "test":
        return loaded.test
    if split == "validation" and config.train_split == "all":
        raise ArgumentError("this run trained on all training images and has no validation split; use test")
    train, val = training_split(loaded, config.train_split)
    return train if split == "train" else val


def scores(network: Trained, dataset: Dataset) -> Scores:
    """Loss and accuracies of a network on all images of `dataset`, without dropout."""
    found = programs.evaluate_on(network.config, network.params, dataset)
    right = np.argmax(found.logits, axis=1) == dataset.labels
    classes = {
        int(label): share(int(right[dataset.labels == label].sum()), int(np.sum(dataset.labels == label)))
        for label in np.unique(dataset.labels)
    }
    return Scores(found.loss, share(int(right.sum()), len(right)), classes)
