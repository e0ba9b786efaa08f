"""Coverage, error rates and power of the statistics on simulated data with a known truth."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t

from cnnjax.stats import conclusion, intervals, paired, summarise

SURE = 1e-5  # a correct implementation fails such a bound for one seed in 100,000

differences = st.lists(
    st.floats(-1, 1).map(lambda x: round(x, 4)) | st.sampled_from([0.0, 0.25]),
    min_size=1,
    max_size=9,
).map(np.array)
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8).map(np.array)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def within_binomial(hits: int, trials: int, rate: float) -> bool:
    return bool(binom.ppf(SURE, trials, rate) <= hits <= binom.isf(SURE, trials, rate))


# Coverage of BCa on normal data at this n, from 20,000 simulations; it reaches 95% only in the limit.
@pytest.mark.parametrize(("n", "rate"), [(6, 0.855), (30, 0.931), (200, 0.946)])
def test_bca_interval_covers_at_the_rate_known_for_this_n(n, rate, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 999)
    draw, trials, truth = np.random.default_rng(n), 1000, 0.3
    bounds = [intervals.bca_interval(draw.normal(truth, 1, n), draw) for _ in range(trials)]
    assert within_binomial(sum(low <= truth <= high for low, high in bounds), trials, rate)


@settings(deadline=None, max_examples=60)
@given(differences)
@example(np.array([0.1, 0.1, np.nextafter(0.1, 1)]))
@example(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]))
def test_bca_interval_is_defined_and_lies_within_the_data(d):
    low, high = intervals.bca_interval(d, rng())
    if len(d) == 1:
        assert math.isnan(low) and math.isnan(high)
    else:
        assert d.min() - 1e-9 <= low <= high <= d.max() + 1e-9
        assert (low == high) == (np.ptp(d) <= 1e-9)


# 8 pairs are enumerated, 25 sampled. Heavy-tailed t noise is symmetric, which is all the null assumes.
@pytest.mark.parametrize(("n", "trials"), [(8, 2000), (25, 500)])
def test_sign_flip_gives_at_most_5_percent_false_positives(n, trials, monkeypatch):
    monkeypatch.setattr(paired, "FLIPS", 1999)
    draw = np.random.default_rng(n)
    hits = sum(paired.sign_flip_p(draw.standard_t(2, n), draw) <= 0.05 for _ in range(trials))
    assert 0 < hits <= binom.isf(SURE, trials, 0.05)


def test_family_of_contrasts_gives_at_most_5_percent_false_positives():
    draw, trials, n = np.random.default_rng(1), 600, 10
    hits = 0
    for _ in range(trials):
        arms = draw.normal(size=(4, n)) + draw.normal(size=n)
        p = [paired.sign_flip_p(arm - arms[0], draw) for arm in arms[1:]]
        hits += bool((paired.holm(p) <= 0.05).any())
    assert 0 < hits <= binom.isf(SURE, trials, 0.05)


@settings(deadline=None, max_examples=60)
@given(differences)
@example(np.array([0.1, 0.2, 0.3]))  # 0.1 + 0.2 - 0.3 is not 0 in floating point
def test_sign_flip_p_is_the_share_of_all_patterns(d):
    patterns = np.array(list(itertools.product((-1, 1), repeat=len(d))))
    exact = [abs(math.fsum(row)) >= abs(math.fsum(d)) - 1e-9 for row in patterns * d]
    assert paired.sign_flip_p(d, rng()) == np.mean(exact)


@given(differences)
def test_sign_flip_p_is_invariant_to_sign_order_and_scale(d):
    p = paired.sign_flip_p(d, rng())
    assert p == paired.sign_flip_p(-d, rng()) == paired.sign_flip_p(100 * np.sort(d), rng())
    assert paired.smallest_p(len(d)) <= p <= 1


def test_sampled_p_agrees_with_the_exact_one_and_is_never_zero(monkeypatch):
    d = np.random.default_rng(3).normal(0.4, 1, 12)
    exact = paired.sign_flip_p(d, rng())
    monkeypatch.setattr(paired, "EXACT_UP_TO", 5)
    sampled = paired.sign_flip_p(d, rng()) * (paired.FLIPS + 1) - 1
    assert within_binomial(round(sampled), paired.FLIPS, exact)
    assert paired.sign_flip_p(np.ones(40), rng()) == paired.smallest_p(40) > 0


def test_holm_equals_the_table_worked_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2 = 0.06, and 0.04 x 1 is lifted to the 0.06 before it.
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.9, 0.9]) == pytest.approx([1, 1])
    assert paired.holm([]).shape == (0,)


@given(probabilities, st.randoms())
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p, random):
    corrected = paired.holm(p)
    assert (corrected >= p).all() and (corrected <= np.minimum(1, p * len(p))).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(paired.holm(p[order]), corrected[order])


@pytest.mark.parametrize("n", [2, 3, 6, 30])
def test_80_percent_of_t_tests_detect_the_detectable_difference(n):
    trials, sd = 4000, 0.7
    shift = paired.detectable_difference(sd, n)
    data = np.random.default_rng(n).normal(shift, sd, (trials, n))
    statistic = data.mean(axis=1) / data.std(axis=1, ddof=1) * math.sqrt(n)
    detected = np.abs(statistic) >= t.ppf(0.975, n - 1)
    assert within_binomial(int(detected.sum()), trials, 0.8)


def test_detectable_difference_shrinks_with_seeds_and_scales_with_noise():
    sizes = [paired.detectable_difference(1.0, n) for n in range(2, 60)]
    assert (np.diff(sizes) < 0).all()
    assert paired.detectable_difference(3.0, 9) == pytest.approx(3 * paired.detectable_difference(1.0, 9))
    assert math.isnan(paired.detectable_difference(1.0, 1))


@given(differences)
def test_probabilities_of_improvement_in_both_directions_sum_to_one(d):
    forth, back = paired.probability_of_improvement(d), paired.probability_of_improvement(-d)
    assert forth + back == pytest.approx(1)
    assert forth == pytest.approx(((d > 0).sum() + 0.5 * (d == 0).sum()) / len(d))


def test_nothing_is_significant_below_six_pairs():
    for n in range(12):
        huge = np.stack([np.zeros(n), np.full(n, 1e6)])
        (contrast,) = summarise(huge, ["a", "b"]).contrasts
        assert contrast.can_claim == contrast.significant == (n >= 6)
        assert contrast.p_holm == contrast.p_floor


@pytest.mark.parametrize("contrasts", [1, 2, 3, 5, 9])
def test_seeds_needed_is_the_first_n_that_can_be_significant(contrasts):
    needed = paired.seeds_needed(contrasts)
    for n in (needed - 1, needed):
        values = np.concatenate([np.zeros((1, n)), np.ones((contrasts, n))])
        summary = summarise(values, [str(i) for i in range(contrasts + 1)])
        assert all(c.can_claim == c.significant == (n == needed) for c in summary.contrasts)


def accuracies(effects: list[float], seeds: int) -> np.ndarray:
    draw = np.random.default_rng(5)
    common = draw.normal(0.984, 0.001, seeds)
    return common + np.array(effects)[:, None] + draw.normal(0, 2e-4, (len(effects), seeds))


def test_summary_pairs_by_seed_and_excludes_diverged_runs():
    values = accuracies([0, 0.005, 0.001], 9)
    broken = values.copy()
    broken[0, 2], broken[1, 4] = np.nan, np.inf
    summary = summarise(broken, ["none", "half", "most"])
    assert [(a.n, a.diverged) for a in summary.arms] == [(8, 1), (8, 1), (9, 0)]
    assert [(c.n, c.dropped) for c in summary.contrasts] == [(7, 2), (8, 1)]
    kept = np.delete(values, (2, 4), axis=1)
    half = summary.contrasts[0]
    assert half.difference == pytest.approx((kept[1] - kept[0]).mean())
    assert half.low < half.difference < half.high
    assert summary.arms[2].sd == pytest.approx(np.std(values[2], ddof=1))
    assert (half.reference, half.arm, half.improvement) == ("none", "half", 1.0)
    worse = summarise(broken, ["none", "half", "most"], higher_is_better=False)
    assert worse.contrasts[0].improvement == 0.0


def test_another_arm_changes_only_the_correction_of_a_contrast():
    values = accuracies([0, 0.005, 0.001], 8)
    (alone,) = summarise(values[:2], ["none", "half"]).contrasts
    first, _ = summarise(values, ["none", "half", "most"]).contrasts
    same = {"p_holm": alone.p_holm, "p_floor": alone.p_floor}
    assert first._replace(**same) == alone
    assert first.p_holm >= alone.p_holm


@pytest.mark.parametrize("seeds", [0, 1, 2, 7])
@pytest.mark.parametrize("fill", [np.nan, 0.5, None])
def test_summary_is_strict_json_for_degenerate_data(seeds, fill):
    values = accuracies([0, 0.005], seeds) if fill is None else np.full((2, seeds), fill)
    summary = summarise(values, ["none", "half"])
    record = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert record["arms"][0]["n"] == (0 if fill is np.nan else seeds)
    assert set(record["contrasts"][0]) >= {"difference", "low", "high", "p", "can_claim"}
    assert conclusion(summary, "accuracy").count(".") >= 1


def test_summary_rejects_a_shape_that_does_not_match_the_names():
    for values in (np.zeros(3), np.zeros((3, 2)), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="arms, seeds"):
            summarise(values, ["none", "half"])


def test_conclusion_reports_significant_and_non_significant_contrasts():
    names = ["no dropout", "dropout 0.5", "dropout 0.75", "dropout 0.9"]
    values = accuracies([0, 0.005, 0.0, -0.003], 10)
    shown = conclusion(summarise(values, names), "validation accuracy", accuracy=True)
    assert "over 10 paired seeds" in shown
    assert "dropout 0.5 raises it by 0.5" in shown and "dropout 0.9 lowers it by 0.298" in shown
    assert "No significant difference for dropout 0.75; true differences below about" in shown
    assert "percentage points" in shown and "points would often go undetected" in shown
    few = conclusion(summarise(values[:, :6], names), "validation accuracy")
    arms = "dropout 0.5, dropout 0.75 and dropout 0.9"
    assert few.endswith(f"6 paired seeds: six seeds are too few to test {arms}; use at least 7.")
    assert "raises" not in few and "percentage" not in few


def test_conclusion_counts_diverged_runs_and_handles_a_single_arm():
    values = accuracies([0, 0.005], 8)
    values[1, 0] = np.nan
    assert "1 diverged run is excluded" in conclusion(summarise(values, "ab"), "loss")
    assert "nothing to compare" in conclusion(summarise([[1.0]], "a"), "loss")


def test_a_primary_contrast_is_tested_alone_and_gates_the_others():
    """Serial gatekeeping: the primary's p is its own; the others are corrected among themselves."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=8)
    values = np.stack([base, base + 1 + 0.1 * rng.normal(size=8), base + rng.normal(size=8), base + 2])
    names = ["none", "a", "b", "c"]
    plain, guarded = summarise(values, names), summarise(values, names, primary="b")
    p = [c.p for c in plain.contrasts]
    assert guarded.contrasts[1].p_holm == p[1]
    others = np.maximum(paired.holm([p[0], p[2]]), p[1])
    assert [guarded.contrasts[0].p_holm, guarded.contrasts[2].p_holm] == pytest.approx(list(others))


def test_with_six_seeds_only_the_primary_contrast_can_be_significant():
    values = np.zeros((4, 6)) + np.arange(4)[:, None]
    summary = summarise(values, ["none", "a", "b", "c"], primary="b")
    assert [c.can_claim for c in summary.contrasts] == [False, True, False]
    assert "Six seeds are too few to test a and c; use at least 7." in conclusion(summary, "loss")


def test_gatekeeping_keeps_the_error_of_the_family():
    """2,000 families of three null contrasts: at least one is significant in at most 5% of them."""
    rng = np.random.default_rng(5)
    patterns = np.array(list(itertools.product((-1, 1), repeat=8)))
    hits, tries = 0, 2000
    for _ in range(tries):
        differences = rng.normal(size=(3, 8))
        flipped = np.abs(differences @ patterns.T)
        p = (flipped >= np.abs(differences.sum(1, keepdims=True)) - 1e-12).mean(1)
        hits += bool((paired._family(list(p), 0) <= 0.05).any())
    assert hits <= tries * 0.05 + 5 * math.sqrt(tries * 0.05 * 0.95)
