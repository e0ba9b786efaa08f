"""Confused pairs are counted in both directions and sorted; the worst images are those most networks miss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import Dataset
from cnnjax.experiment.results import Predictions
from cnnjax.plots import png
from cnnjax.plots.confusion import COLUMNS, worst_images
from cnnjax.report import tables
from cnnjax.stats import summarise
from cnnjax.stats.confusion import confused_pairs, worst_mistakes
from cnnjax.stats.sentences import pair_sentence

LABELS = np.array([3, 3, 5, 5, 5, 1, 7], np.int32)
PREDICTIONS = Predictions(
    np.array([[5, 3, 3, 3, 5, 1, 1], [5, 3, 5, 3, 5, 7, 1]], np.uint8),
    np.array([[0.9, 0.8, 0.95, 0.7, 1.0, 1.0, 0.5], [0.7, 0.8, 0.9, 0.9, 1.0, 0.6, 0.9]], np.float32),
)


@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_every_mistake_is_in_exactly_one_pair(seeds: int, n: int, root: int) -> None:
    rng = np.random.default_rng(root)
    labels = rng.integers(0, 10, n).astype(np.int32)
    predictions = Predictions(
        rng.integers(0, 10, (seeds, n)).astype(np.uint8), rng.random((seeds, n), np.float32)
    )
    pairs = confused_pairs(labels, predictions)
    assert len({(pair.a, pair.b) for pair in pairs}) == 45
    np.testing.assert_array_equal(sum(p.per_seed for p in pairs), (predictions.labels != labels).sum(axis=1))
    totals = [pair.counts.sum() for pair in pairs]
    assert totals == sorted(totals, reverse=True)
    for pair in pairs:
        mistakes = worst_mistakes(labels, predictions, pair, 10**9)
        assert sum(mistake.seeds for mistake in mistakes) == pair.counts.sum()
        order = [(-mistake.seeds, -mistake.probability, mistake.image) for mistake in mistakes]
        assert order == sorted(order)


def test_both_directions_are_counted_for_every_seed() -> None:
    first, second, *rest = confused_pairs(LABELS, PREDICTIONS)
    assert (first.a, first.b) == (3, 5)
    np.testing.assert_array_equal(first.counts, [[1, 2], [1, 1]])
    np.testing.assert_array_equal(second.counts, [[0, 1], [1, 1]])
    assert not any(pair.counts.any() for pair in rest)


def test_the_worst_images_are_sorted_by_seeds_and_probability() -> None:
    mistakes = worst_mistakes(LABELS, PREDICTIONS, confused_pairs(LABELS, PREDICTIONS)[0], 3)
    found = [(m.image, m.true, m.predicted, m.seeds) for m in mistakes]
    assert found == [(0, 3, 5, 2), (3, 5, 3, 2), (2, 5, 3, 1)]
    # The network that is right about image 2 has no part in the probability of the mistake.
    assert [m.probability for m in mistakes] == pytest.approx([0.8, 0.8, 0.95])


def test_the_sentence_has_count_direction_and_rank() -> None:
    pairs = confused_pairs(LABELS, PREDICTIONS)
    assert pair_sentence(pairs, 5, 3, 7) == (
        "A network confuses 3 and 5 on 2.5 of 7 test images (sd 0.7 over 2 seeds), first of 45 pairs. "
        "It classifies 3 as 5 on 1.0 and 5 as 3 on 1.5."
    )
    alone = confused_pairs(LABELS, Predictions(PREDICTIONS.labels[:1], PREDICTIONS.probability[:1]))
    assert pair_sentence(alone, 1, 7, 7) == (
        "This network confuses 1 and 7 on 1 of 7 test images, second of 45 pairs; 3 and 5 lead with 3. "
        "It classifies 1 as 7 on 0 and 7 as 1 on 1."
    )
    assert "tenth of 45 pairs" in pair_sentence(pairs, *pairs[9][:2], 7)
    assert "11th of 45 pairs" in pair_sentence(pairs, *pairs[10][:2], 7)
    assert "22nd of 45 pairs" in pair_sentence(pairs, *pairs[21][:2], 7)


def test_diverged_networks_confuse_nothing() -> None:
    """They predict class 0 with probability NaN, and count in no record, table or figure."""
    logits = np.full((1, len(LABELS), 10), np.nan, np.float32)
    diverged = Predictions.of(logits)
    both = Predictions(*map(np.concatenate, zip(PREDICTIONS, diverged, strict=True)))
    images = np.zeros((len(LABELS), 4, 4, 1), np.uint8)
    test = Dataset(images, LABELS)
    given = {"none left": diverged, "two of three": both}
    right = {"two of three": PREDICTIONS}
    assert tables.confusion_record(given, test) == tables.confusion_record(right, test)
    table = tables.confusion_table(given, test, test.class_names)
    assert table == tables.confusion_table(right, test, test.class_names)
    assert table[0][1:] == ["two of three (n=2)"]
    figures = [tables.confusion_figure(of, test, "")["confused.png"]() for of in (given, right)]
    given_labels, right_labels = ([axis.get_xlabel() for axis in figure.axes] for figure in figures)
    assert given_labels == right_labels
    alone = {"none left": diverged}
    assert tables.confusion_record(alone, test) == tables.confusion_figure(alone, test, "") == {}


def test_no_pairs_have_no_difference() -> None:
    (contrast,) = summarise(np.array([[0.9] * 6, [np.nan] * 6]), ["a", "b"]).contrasts
    assert tables.contrast_cells(contrast, 100, ".2f") == ["-", "too few seeds"]


def test_predictions_are_the_most_probable_class_and_its_probability() -> None:
    logits = np.log(np.array([[[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]]], np.float32)) + 300
    predictions = Predictions.of(logits)
    np.testing.assert_array_equal(predictions.labels, [[1, 0]])
    np.testing.assert_allclose(predictions.probability, [[0.7, 0.5]], rtol=1e-4)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_figure_shows_images_with_their_predicted_class(seeds: int) -> None:
    predictions = Predictions(PREDICTIONS.labels[:seeds], PREDICTIONS.probability[:seeds])
    images = np.arange(7 * 16, dtype=np.uint8).reshape(7, 4, 4, 1)
    pairs = confused_pairs(LABELS, predictions)[:2]
    rows = [(pair, worst_mistakes(LABELS, predictions, pair, COLUMNS)) for pair in pairs]
    figure = worst_images(images, rows, title="title", caption="caption")
    shown = [(axis.images[0].get_array(), axis.get_xlabel()) for axis in figure.axes if axis.images]
    assert len(shown) == sum(len(mistakes) for _, mistakes in rows)
    for (image, label), mistake in zip(shown, (m for _, ms in rows for m in ms), strict=True):
        np.testing.assert_array_equal(np.asarray(image), images[mistake.image, ..., 0])
        assert label.startswith(f"{mistake.true} → {mistake.predicted}, {mistake.probability:.0%}")
        assert (f"{mistake.seeds} of 2" in label) == (seeds == 2)
    assert png(figure).startswith(b"\x89PNG")


def test_predictions_hold_every_class_in_the_fewest_bits() -> None:
    """Experiments of up to 256 classes have always kept a byte a prediction."""
    for classes, dtype in ((10, np.uint8), (256, np.uint8), (257, np.uint16), (300, np.uint16)):
        logits = np.eye(classes, dtype=np.float32)[None]
        labels = Predictions.of(logits).labels
        assert labels.dtype == dtype
        np.testing.assert_array_equal(labels[0], np.arange(classes))
