"""Laws of the split into a training and a validation part."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import data
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Protocol
from cnnjax.experiment.protocol import divide

TINY = Path(__file__).parent / "data"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=300), st.floats(0, 1), st.integers(0, 2**32))
def test_split_laws(labels, fraction, seed):
    n = len(labels)
    numbered = np.zeros((n, 28, 28, 1), np.uint8)
    numbered[:, 0, 0, 0], numbered[:, 0, 1, 0] = np.arange(n) // 256, np.arange(n) % 256
    dataset = data.Dataset(numbered, np.array(labels, np.int32))
    parts = data.split(dataset, fraction, seed=seed)
    indices = [p.images[:, 0, 0, 0].astype(int) * 256 + p.images[:, 0, 1, 0] for p in parts]
    assert sorted(np.concatenate(indices)) == list(range(n))
    assert len(parts[1].labels) == round(n * (1 - fraction))
    for part, index in zip(parts, indices, strict=True):
        np.testing.assert_array_equal(part.labels, dataset.labels[index])
        assert (np.diff(index) > 0).all()
    share = np.bincount(labels, minlength=10) * (1 - fraction)
    assert (np.abs(np.bincount(parts[1].labels, minlength=10) - share) < 1 + 1e-6).all()
    for part, other in zip(parts, data.split(dataset, fraction, seed=seed), strict=True):
        np.testing.assert_array_equal(part.images, other.images)


def test_split_depends_on_its_seed():
    train = data.load("kmnist", TINY).train
    (a, _), (b, _) = data.split(train, seed=0), data.split(train, seed=1)
    assert len(a.labels) == len(b.labels) == 800
    assert not np.array_equal(a.images, b.images)


def test_a_protocol_divides_by_its_split_seed():
    loaded = data.load("kmnist", TINY)
    for seed in (0, 3):
        splits = divide(loaded, Protocol(dataset="kmnist", split_seed=seed))
        train, validation = data.split(loaded.train, seed=seed)
        np.testing.assert_array_equal(splits.train.images, train.images)
        np.testing.assert_array_equal(splits.val.images, validation.images)
    with pytest.raises(ArgumentError, match="--split-seed 3 does nothing with --train-split all"):
        Protocol(train_split="all", split_seed=3)


@pytest.mark.parametrize("images", [1, 2])
def test_a_data_set_that_is_too_small_to_divide_says_so(images: int) -> None:
    few = data.Dataset(np.zeros((images, 4, 4, 1), np.uint8), np.arange(images, dtype=np.int32))
    loaded = data.Loaded(few, few, "few", "memory", {})
    with pytest.raises(UserError, match=f"{images} images are too few to set some apart for validation"):
        data.training_split(loaded)
    with pytest.raises(UserError, match=f"{images} images are too few to set test images apart"):
        data.from_arrays(few.images, few.labels, classes=2)


def test_all_training_images_are_validated_on_the_test_images():
    loaded = data.load("kmnist", TINY)
    train, validation = data.training_split(loaded, "all")
    assert train is loaded.train and validation is loaded.test


def test_split_of_mnist_is_48000_and_12000():
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    labels = np.repeat(np.arange(10, dtype=np.int32), counts)
    images = np.broadcast_to(np.uint8(0), (60_000, 28, 28, 1))
    train, validation = data.split(data.Dataset(images, labels))
    assert (len(train.labels), len(validation.labels)) == (48_000, 12_000)


def test_split_is_the_same_for_ever():
    # A frozen value on purpose: if the split changed, earlier results would no longer be comparable.
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((28, 28, 1), np.uint8)
    _, validation = data.split(data.Dataset(images, np.repeat(np.arange(4, dtype=np.int32), 10)))
    assert validation.images[:, 0, 0, 0].tolist() == [2, 3, 11, 13, 20, 21, 32, 35]
