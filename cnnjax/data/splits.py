"""Splits of the training images into a training and a validation part."""

import numpy as np

from cnnjax.data.dataset import Dataset, Loaded
from cnnjax.errors import UserError


def training_split(loaded: Loaded, which: str = "part", *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Return what a run trains on, and what it is validated on after every epoch.

    "part" gives the two parts of `split` with this seed. "all" trains on all training images and validates
    on the test images, because no others are left; validation must then choose nothing.
    """
    train, val = (loaded.train, loaded.test) if which == "all" else split(loaded.train, seed=seed)
    if not len(val.labels):
        raise UserError(
            f"{len(train.labels)} images are too few to set some apart for validation; add images"
        )
    return train, val


def subset(dataset: Dataset, images: int) -> Dataset:
    """Return a fixed subset of so many images, stratified by class; the whole set if it has no more."""
    total = len(dataset.labels)
    return split(dataset, images / total)[0] if images < total else dataset


def split(dataset: Dataset, train_fraction: float = 0.8, *, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split a data set into a training and a validation part, stratified by class.

    The split depends on `seed` alone, which is not the seed of a run: all runs share one split. By default,
    MNIST's 60,000 images are split into 48,000 and 12,000. The validation part has its share of each class
    to within one example (the largest remainders are rounded up). Both parts keep the order of `dataset`.
    """
    labels = dataset.labels
    counts = np.bincount(labels)
    shares = counts * (1 - train_fraction)
    quotas = np.floor(shares).astype(int)
    missing = round(len(labels) * (1 - train_fraction)) - quotas.sum()
    quotas[np.argsort(quotas - shares, kind="stable")[:missing]] += 1
    # NumPy guarantees only the raw output of its generators never to change (NEP 19).
    keys = np.random.PCG64(seed).random_raw(len(labels))
    order = np.lexsort((keys, labels))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    validation = rank < quotas[labels]
    return (
        dataset._replace(images=dataset.images[~validation], labels=labels[~validation]),
        dataset._replace(images=dataset.images[validation], labels=labels[validation]),
    )
