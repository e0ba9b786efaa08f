"""The interval over seeds and images covers where both are new, which one over seeds alone does not."""

import numpy as np
import pytest
from scipy.stats import binom

from cnnjax.data import Dataset
from cnnjax.experiment import Results
from cnnjax.report.crossed import crossed_record
from cnnjax.stats.confusion import Predictions
from cnnjax.stats.crossed import crossed
from cnnjax.stats.intervals import t_interval
from cnnjax.stats.sentences import REHEARSAL

SURE, TRIALS = 1e-5, 3000


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("sds", [(0.05, 0.5, 1.0), (0.2, 0.1, 1.0), (0.0, 0.8, 0.5), (0.0, 0.0, 1.0)])
def test_the_interval_covers_the_difference_for_new_seeds_and_images(seeds, sds):
    draw, images = np.random.default_rng(seeds), 60
    of_seed, of_image, rest = (
        draw.normal(0, sd, (TRIALS, *shape))
        for sd, shape in zip(sds, ((seeds, 1), (1, images), (seeds, images)), strict=True)
    )
    found = crossed(0.3 + of_seed + of_image + rest)
    covered = int(((found.low <= 0.3) & (found.high >= 0.3)).sum())
    assert covered >= binom.ppf(SURE, TRIALS, 0.945)
    assert covered <= binom.isf(SURE, TRIALS, 0.96) or sds[2] == max(sds), "it is no wider than it must be"


def test_of_correct_and_wrong_images_it_covers_and_seeds_alone_do_not():
    """Images differ in how hard they are for either arm; the truth is over all such images."""
    draw, seeds, images, trials = np.random.default_rng(0), 8, 150, 1000
    hard = 0.5 * (draw.random((trials, 1, images)) < 0.15)
    other = 1.4 * hard * (draw.random((trials, 1, images)) < 0.5)
    luck = draw.uniform(0.6, 1.4, (2, trials, seeds, 1))
    wrong = draw.random((2, trials, seeds, images)) < np.stack(np.broadcast_arrays(hard, other)) * luck
    difference, truth = wrong[0].astype(float) - wrong[1], 0.15 * 0.5 * (1 - 0.7)
    found = crossed(difference)
    both = int(((found.low <= truth) & (found.high >= truth)).sum())
    mean, half, _ = t_interval(difference.mean(axis=-1))
    alone = int((np.abs(mean - truth) <= half).sum())
    assert both >= binom.ppf(SURE, trials, 0.94) and alone < binom.ppf(SURE, trials, 0.94)


def test_one_difference_has_the_parts_of_its_variance():
    draw = np.random.default_rng(0)
    seed, image = draw.normal(0, 0.3, (12, 1)), draw.normal(0, 0.7, (1, 4000))
    found = crossed(seed + image)
    assert found.seeds == pytest.approx(seed.std(ddof=1) / np.sqrt(12))
    assert found.images == pytest.approx(image.std(ddof=1) / np.sqrt(4000))
    assert found.high - found.low == pytest.approx(2 * 2.2 * np.hypot(found.seeds, found.images), rel=0.01)
    same = crossed(np.zeros((5, 9)))
    assert (same.low, same.high) == (0, 0)
    assert np.isnan(crossed(np.zeros((3, 9))).low)


def test_the_record_is_of_seeds_that_did_not_diverge():
    draw, images, seeds = np.random.default_rng(0), 200, 6
    labels = draw.integers(0, 10, images).astype(np.int32)
    test = Dataset(np.zeros((images, 2, 2, 1), np.uint8), labels)

    def said(share: float) -> Predictions:
        right = draw.random((seeds, images)) < share
        wrong = (labels + 1) % 10
        return Predictions(
            np.where(right, labels, wrong).astype(np.uint8), np.ones((seeds, images), np.float32)
        )

    predictions = {
        "a": said(0.9),
        "b": said(0.8),
        "c": said(0.5)._replace(labels=np.zeros((5, images), np.uint8)),
    }
    accuracy = np.full((3, seeds, 1), 0.9)
    accuracy[1, 2] = np.nan
    results = Results(("a", "b", "c"), tuple(range(seeds)), 1, {"test_accuracy": accuracy}, predictions)
    record = crossed_record(results, test, rehearsal=False)
    assert list(record["crossed"]) == ["b"], "of c, a seed is missing"
    kept = np.delete(
        (predictions["b"].labels == labels).mean(axis=1) - (predictions["a"].labels == labels).mean(axis=1), 2
    )
    assert record["crossed"]["b"]["difference"] == pytest.approx(kept.mean())
    assert "new images" in record[
        "over_seeds_and_images"
    ] and f"{100 * kept.mean():+.2f} points for b" in str(record)
    assert crossed_record(results._replace(predictions={}), test, rehearsal=False) == {}


def test_the_sentence_names_a_rehearsal_and_says_that_intervals_are_not_corrected() -> None:
    seeds, images = 5, 50
    said = Predictions(np.zeros((seeds, images), np.uint8), np.ones((seeds, images), np.float32))
    test = Dataset(np.zeros((images, 2, 2, 1), np.uint8), np.zeros(images, np.int32))

    def sentence(arms: str, rehearsal: bool) -> str:
        values = {"test_accuracy": np.ones((len(arms), seeds, 1))}
        results = Results(tuple(arms), tuple(range(seeds)), 1, values, dict.fromkeys(arms, said))
        return crossed_record(results, test, rehearsal=rehearsal)["over_seeds_and_images"]

    assert sentence("ab", True).startswith(f"{REHEARSAL}. For new seeds")
    assert sentence("ab", False).startswith("For new seeds") and "by itself" not in sentence("ab", False)
    assert sentence("abc", False).endswith(", each by itself, without correction.")
