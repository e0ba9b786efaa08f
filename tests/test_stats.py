"""Coverage, error rates and power of the statistics on simulated data with a known truth."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, ttest_1samp, wilcoxon

from cnnjax.errors import ArgumentError
from cnnjax.report.tables import contrast_heads
from cnnjax.stats import conclusion, contrasts, families, power, signflip, summarise, summarise_together
from cnnjax.stats.intervals import t_interval, wilson_interval
from cnnjax.stats.sentences import REHEARSAL, interval_name, pairing_sentence
from cnnjax.stats.variance import sd_interval

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


# What a 95% t interval of these covers, from 200,000 simulations; for normal data it is 95% by definition.
T_COVERAGE = {
    "normal": dict.fromkeys((5, 6, 8, 10, 20), 0.95),
    "exponential": {5: 0.883, 6: 0.887, 8: 0.894, 10: 0.901, 20: 0.919},
    "t(3)": {5: 0.9625, 6: 0.962, 8: 0.9605, 10: 0.960, 20: 0.957},
}
DRAWS = {
    "normal": lambda draw, size: draw.normal(size=size),
    "exponential": lambda draw, size: draw.exponential(size=size) - 1,
    "t(3)": lambda draw, size: draw.standard_t(3, size=size),
}


@pytest.mark.parametrize("n", [5, 6, 8, 10, 20])
@pytest.mark.parametrize("name", DRAWS)
def test_t_interval_covers_at_the_rate_known_for_these_data(name, n):
    data = DRAWS[name](np.random.default_rng(n), (20_000, n)) + 0.3
    mean, half, _ = t_interval(data)
    covered = int((np.abs(mean - 0.3) <= half).sum())
    assert within_binomial(covered, len(data), T_COVERAGE[name][n])


@pytest.mark.parametrize("n", [5, 6, 8, 10, 20])
@pytest.mark.parametrize("name", ["normal", "t(3)"])
def test_interval_of_the_test_covers_exactly_where_differences_are_symmetric(name, n):
    """A subset mean is as likely as another to be the smallest one above the truth, whatever the data."""
    draw, trials = np.random.default_rng(n), 3000
    data = DRAWS[name](draw, (trials, n)) + 0.3
    means = signflip.subset_means(data, draw, exact_up_to=10, subsets=1023)
    low, high = signflip.bounds(means, 0.05)
    covered, count = int(((low <= 0.3) & (high >= 0.3)).sum()), means.shape[-1] + 1
    rate = 1 - 2 * math.floor(0.05 * count / 2) / count
    assert rate >= 0.95 and within_binomial(covered, trials, rate) if n > 5 else covered == trials


@pytest.mark.parametrize(("n", "rate"), [(6, 0.935), (8, 0.905), (10, 0.906)])
def test_interval_of_the_test_covers_less_for_skewed_differences(n, rate):
    draw, trials = np.random.default_rng(n), 3000
    low, high = signflip.bounds(signflip.subset_means(DRAWS["exponential"](draw, (trials, n)), draw), 0.05)
    assert within_binomial(int(((low <= 0) & (high >= 0)).sum()), trials, rate)


def test_there_is_no_interval_of_fewer_than_four_values():
    halves = [t_interval(np.arange(float(n)))[1] for n in range(6)]
    assert [bool(np.isfinite(half)) for half in halves] == [False] * 4 + [True] * 2


@settings(deadline=None, max_examples=200)
@given(differences, st.sampled_from([0.05, 0.025, 0.05 / 3, 0.01]))
@example(np.array([0.1, 0.2, 0.3, -0.6, 0.1, 0.1]), 0.05)  # subsets whose sum is 0 but for rounding
@example(np.array([0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]), 0.05)
def test_interval_excludes_0_if_and_only_if_p_is_at_most_its_level(d, level):
    low, high = signflip.sign_flip_interval(d, rng(), level)
    assert (low > 0 or high < 0) == (signflip.sign_flip_p(d, rng()) <= level)
    assert low <= d.mean() + 1e-12 and d.mean() - 1e-12 <= high


@pytest.mark.parametrize("n", [6, 8, 12])
def test_interval_holds_the_values_that_the_test_does_not_reject(n):
    d = np.random.default_rng(n).normal(0.4, 1, n)
    low, high = signflip.sign_flip_interval(d, rng())
    for theta, kept in ((low + 1e-6, True), (low - 1e-6, False), (high - 1e-6, True), (high + 1e-6, False)):
        assert (signflip.sign_flip_p(d - theta, rng()) > 0.05) == kept


# 8 pairs are enumerated, 25 sampled. Heavy-tailed t noise is symmetric, which is all the null assumes.
@pytest.mark.parametrize(("n", "trials"), [(8, 2000), (25, 500)])
def test_sign_flip_gives_at_most_5_percent_false_positives(n, trials):
    draw = np.random.default_rng(n)
    means = signflip.subset_means(draw.standard_t(2, (trials, n)), draw, subsets=2047)
    hits = int((signflip.p_value(means) <= 0.05).sum())
    assert 0 < hits <= binom.isf(SURE, trials, 0.05)


def test_family_of_contrasts_gives_at_most_5_percent_false_positives():
    draw, trials, n = np.random.default_rng(1), 600, 10
    hits = 0
    for _ in range(trials):
        arms = draw.normal(size=(4, n)) + draw.normal(size=n)
        p = [signflip.sign_flip_p(arm - arms[0], draw) for arm in arms[1:]]
        hits += bool((families.holm(p) <= 0.05).any())
    assert 0 < hits <= binom.isf(SURE, trials, 0.05)


@settings(deadline=None, max_examples=60)
@given(differences)
@example(np.array([0.1, 0.2, -0.3, 0.4]))  # 0.1 + 0.2 - 0.3 is not 0 in floating point
def test_sign_flip_p_is_the_share_of_all_patterns(d):
    patterns = np.array(list(itertools.product((-1, 1), repeat=len(d))))
    exact = [abs(math.fsum(row)) >= abs(math.fsum(d)) - 1e-9 for row in patterns * d]
    assert signflip.sign_flip_p(d, rng()) == np.mean(exact)


@given(differences)
def test_sign_flip_p_is_invariant_to_sign_order_and_scale(d):
    p = signflip.sign_flip_p(d, rng())
    assert p == signflip.sign_flip_p(-d, rng()) == signflip.sign_flip_p(100 * np.sort(d), rng())
    assert signflip.smallest_p(len(d)) <= p <= 1


def test_sampled_p_agrees_with_the_exact_one_and_is_never_zero():
    d = np.random.default_rng(3).normal(0.4, 1, 12)
    exact = signflip.sign_flip_p(d, rng()) / 2
    means = signflip.subset_means(d, rng(), exact_up_to=5)
    assert within_binomial(int((means <= 0).sum()), signflip.SUBSETS, exact)
    assert signflip.sign_flip_p(np.ones(40), rng()) == signflip.smallest_p(40) == 2 / 2**17
    assert (2**16 * signflip.sign_flip_p(np.random.default_rng(3).normal(0.1, 1, 40), rng())).is_integer()


def test_holm_equals_the_table_worked_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2 = 0.06, and 0.04 x 1 is lifted to the 0.06 before it.
    assert families.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert families.holm([0.9, 0.9]) == pytest.approx([1, 1])
    assert families.holm([]).shape == (0,)


@given(probabilities, st.randoms())
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p, random):
    corrected = families.holm(p)
    assert (corrected >= p).all() and (corrected <= np.minimum(1, p * len(p))).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(families.holm(p[order]), corrected[order])


@given(differences)
def test_probabilities_of_improvement_in_both_directions_sum_to_one(d):
    forth, back = contrasts.probability_of_improvement(d), contrasts.probability_of_improvement(-d)
    assert forth + back == pytest.approx(1)
    assert forth == pytest.approx(((d > 0).sum() + 0.5 * (d == 0).sum()) / len(d))


def test_nothing_is_significant_below_six_pairs():
    for n in range(12):
        huge = np.stack([np.zeros(n), np.full(n, 1e6)])
        (contrast,) = summarise(huge, ["a", "b"]).contrasts
        assert contrast.can_claim == contrast.significant == (n >= 6)
        assert contrast.p_holm == contrast.p_floor


@pytest.mark.parametrize("m", [1, 2, 3, 5, 9])
def test_the_pairs_needed_are_the_first_n_that_can_be_significant(m):
    needed = families.needed([0] * m)
    for n in (needed - 1, needed):
        values = np.concatenate([np.zeros((1, n)), np.ones((m, n))])
        summary = summarise(values, [str(i) for i in range(m + 1)])
        assert all(c.can_claim == c.significant == (n == needed) for c in summary.contrasts)
        assert n == needed or {c.needed for c in summary.contrasts} == {needed}
        assert summary.rehearsal == (n < needed)


def test_diverged_pairs_count_towards_what_a_design_could_show():
    """Ranked below all others, they can make the difference significant."""
    values = np.stack([np.zeros(6), np.arange(6.0)])
    values[1, 3] = np.nan
    assert not summarise(values, "ab").rehearsal and summarise(values[:, :5], "ab").rehearsal


def test_what_is_needed_counts_the_pairs_at_hand():
    """A primary contrast of 5 pairs needs one more, and the others, which have 8, no more than that."""
    values = accuracies([0, 0.005, 0.001, 0.002], 8)
    values[1, :3] = np.nan
    summary = summarise(values, ["none", "half", "b", "c"], primary="half")
    assert [(c.n, c.can_claim, c.needed) for c in summary.contrasts] == [
        (5, False, 6),
        (8, False, 6),
        (8, False, 6),
    ]
    said = conclusion(summary, "accuracy", accuracy=True)
    assert "five seeds are too few to test half, b and c; use at least 6" in said and REHEARSAL not in said


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
    first, second = summarise(values, ["none", "half", "most"]).contrasts
    for field in ("n", "difference", "sd", "p", "improvement", "correlation"):
        assert getattr(first, field) == getattr(alone, field)
    assert first.p <= second.p and (alone.p_holm, first.p_holm) == (alone.p, 2 * first.p)
    assert first.low < alone.low < alone.high < first.high, "intervals of a family hold together"


def test_the_random_subsets_of_a_contrast_are_the_same_beside_another_arm():
    """Above 20 pairs, p is the share of a sample of the sign patterns."""
    values = rng().normal(size=(3, 24))
    (alone,) = summarise(values[:2], "ab").contrasts
    first, _ = summarise(values, "abc").contrasts
    assert first.p == alone.p > 0.01


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
    assert "over 10 paired seeds, on these images and this split: " in shown
    assert "dropout 0.5 raises it by 0.5" in shown and "dropout 0.9 lowers it by 0.298" in shown
    assert "No significant difference for dropout 0.75 (" in shown and "because the spread is" in shown
    assert "percentage points" in shown and "points with 80% probability" in shown
    few = conclusion(summarise(values[:, :6], names), "validation accuracy")
    arms = "dropout 0.5, dropout 0.75 and dropout 0.9"
    assert few.startswith(REHEARSAL) and few.endswith(
        f": six seeds are too few to test {arms}; use at least 7."
    )
    assert "raises" not in few and "percentage" not in few
    assert conclusion(summarise(values, names), "loss", rehearsal=True).startswith(REHEARSAL)


def test_the_difference_that_could_be_found_is_the_largest_of_the_arms():
    noise = np.array([1, -1, 2, -2, 3, -3, 4, -4])
    for sizes in ((0.001, 0.003), (0.003, 0.001)):
        summary = summarise([0 * noise, *(size * noise for size in sizes)], "abc")
        found = [contrast.detectable for contrast in summary.contrasts]
        assert max(found) == pytest.approx(3 * min(found))
        said = conclusion(summary, "accuracy", accuracy=True)
        assert f"find a true difference of {100 * max(found):.3f} points with 80% probability" in said


def test_conclusion_counts_diverged_runs_and_handles_a_single_arm():
    values = accuracies([0, 0.005], 8)
    values[1, 0] = np.nan
    said = conclusion(summarise(values, "ab"), "loss")
    assert "1 diverged run is excluded; ranked below all others instead, p is 0.2 for b." in said
    values[1, 1] = np.nan
    assert "2 diverged runs are excluded; ranked" in conclusion(summarise(values, "ab"), "loss")
    assert "nothing to compare" in conclusion(summarise([[1.0]], "a"), "loss")


def test_a_diverged_run_has_the_worst_rank():
    """Seven seeds gain a little and one diverges: without it the arm is better, with it nothing is shown."""
    values = np.stack([np.zeros(8), np.linspace(0.1, 0.2, 8)])
    (whole,) = summarise(values, "ab").contrasts
    assert math.isnan(whole.p_worst)
    values[1, 3] = np.nan
    (contrast,) = summarise(values, "ab").contrasts
    assert contrast.significant and contrast.p == 2 / 2**7
    ranks = np.array([1, 2, 3, -8, 4, 5, 6, 7])
    exact: Any = wilcoxon(ranks, method="exact")
    assert contrast.p_worst == pytest.approx(exact.pvalue) and contrast.p_worst > 0.05
    losses = summarise(-values, "ab", higher_is_better=False).contrasts[0]
    assert losses.p_worst == contrast.p_worst
    assert summarise(values, "ab", higher_is_better=False).contrasts[0].p_worst == 2 / 2**8
    values[0, 3] = np.nan
    assert math.isnan(summarise(values, "ab").contrasts[0].p_worst), "both diverged"


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(4, 12), st.integers(1, 5), st.booleans(), st.booleans())
def test_no_verdict_contradicts_the_interval_beside_it(seed, n, m, gated, coarse):
    """On random data: an interval of the test has no 0 if and only if its contrast is significant."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(m + 1, n)) + draw.exponential(1, (m + 1, 1)) * draw.choice(
        (-1, 0, 1), (m + 1, 1)
    )
    values = values.round(1) if coarse else values
    names = [f"arm {i}" for i in range(m + 1)]
    summary = summarise(values, names, primary=names[1] if gated else None, margin=0.1)
    said = conclusion(summary, "loss")
    for c in summary.contrasts:
        assert c.significant == (c.test_low > 0 or c.test_high < 0)
        assert c.significant == (f"{c.arm} raises it by" in said or f"{c.arm} lowers it by" in said)
        told = any(c.arm in sentence for sentence in said.split(". ") if "would say otherwise" in sentence)
        assert told == (c.disagree and c.level > 0)
        if c.can_claim:
            assert c.disagree == (c.significant == (c.low <= 0 <= c.high))
    if n < 6:
        assert summary.rehearsal and "p 0" not in said and "equal" not in said


def test_what_n_pairs_detect_is_given_for_the_estimated_spread_and_its_interval():
    values = np.random.default_rng(3).normal(size=(3, 10))
    for c in summarise(values, "abc").contrasts:
        found = power.detectable(10, 2)
        expected = found * c.sd, *(found * sd for sd in sd_interval(c.sd, 10))
        np.testing.assert_allclose((c.detectable, c.detectable_low, c.detectable_high), expected)


def test_a_conclusion_names_the_confidence_and_leaves_out_what_too_few_pairs_equal():
    draw = np.random.default_rng(4).normal(size=(3, 12))
    values = np.array([draw[0], draw[0] + 3 + draw[1] / 9, draw[0] + draw[2] / 9])
    said = conclusion(summarise(values[:2], "ab", margin=1.0), "loss")
    assert "(95% interval " in said
    said = conclusion(summarise(values, ("a", "first", "second"), margin=1.0), "loss")
    assert "first raises it by" in said and "(97.5% interval " in said and "econd (corrected p" in said
    values[2, 3:] = np.nan
    said = conclusion(summarise(values, ("a", "first", "second"), margin=1.0), "loss")
    assert "first raises it by" in said and "econd (corrected p" not in said and "equal" not in said


@pytest.mark.parametrize(("right", "n"), [(0, 9), (1, 9), (7, 12), (9, 9), (9_850, 10_000)])
def test_the_interval_of_an_accuracy_is_scipys(right, n):
    expected = binomtest(right, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(right, n), expected, atol=1e-12)
    assert all(map(math.isnan, wilson_interval(0, 0)))


def test_t_intervals_of_a_family_hold_together():
    draw, trials, n, m = np.random.default_rng(2), 4000, 8, 5
    arms = draw.normal(size=(trials, m + 1, n))
    mean, half, _ = t_interval(arms[:, 1:] - arms[:, :1], level=0.05 / m)
    together = int((np.abs(mean) <= half).all(axis=1).sum())
    assert together >= binom.ppf(SURE, trials, 0.95)
    values = arms[0]
    for i, c in enumerate(summarise(values, [str(i) for i in range(m + 1)]).contrasts):
        assert (c.low, c.high) == pytest.approx((mean[0, i] - half[0, i], mean[0, i] + half[0, i]))


def test_a_primary_contrast_is_excepted_from_the_intervals_that_hold_jointly():
    """Those that are named jointly share the level among them; the primary has it by itself."""
    values, names = accuracies([0, 0.005, 0.004, 0.003], 10), ["rate 0", "a", "b", "c"]
    for primary, together in ((None, "abc"), ("b", "ac")):
        compared = summarise(values, names, primary=primary).contrasts
        named = interval_name([c._asdict() for c in compared])
        assert named == "95% t, jointly" + f" except {primary}" * bool(primary)
        assert contrast_heads("points", compared)[0] == f"points [{named}]"
        for c in compared:
            level = 0.05 / (len(together) if c.arm in together else 1)
            row = values[names.index(c.arm)] - values[0]
            assert (c.high - c.low) / 2 == pytest.approx(float(t_interval(row, level=level)[1]))
    for count, primary in ((2, None), (3, "a")):
        few = summarise(values[:count], names[:count], primary=primary).contrasts
        assert interval_name([c._asdict() for c in few]) == "95% t"


def test_contrasts_of_several_ablations_may_be_one_family():
    one, two = accuracies([0, 0.005, 0.001], 8), accuracies([0, 0.0002, 0.001, 0.004], 8)[:, ::-1]
    first, second = summarise_together([(one, "abc"), (two, "wxyz")])
    assert [c.arm for c in (*first.contrasts, *second.contrasts)] == list("bcxyz")
    alone = [*summarise(one, "abc").contrasts, *summarise(two, "wxyz").contrasts]
    found = [c.p_holm for c in (*first.contrasts, *second.contrasts)]
    assert found == pytest.approx(list(families.holm([c.p for c in alone])))
    assert {c.family for c in (*first.contrasts, *second.contrasts)} == {5}
    assert first.arms == summarise(one, "abc").arms


def test_a_primary_that_is_no_arm_is_an_error():
    for name in ("no dropout", "none"):
        with pytest.raises(
            ArgumentError, match=rf"primary arm '{name}' must be an arm other than the first: half"
        ):
            summarise(accuracies([0, 0.005], 8), ["none", "half"], primary=name)
    assert summarise(accuracies([0, 0.005], 8), "ab", primary="b").as_dict()["primary"] == "b"


def test_equivalence_is_two_one_sided_t_tests_and_a_posterior():
    values, margin = accuracies([0, 0.0003], 10), 0.001
    (c,) = summarise(values, "ab", margin=margin).contrasts
    d, same = values[1] - values[0], c.equivalence
    tested: Any = ttest_1samp
    lower, upper, zero = (
        tested(d, mean, alternative=side).pvalue
        for mean, side in ((-margin, "greater"), (margin, "less"), (0, "greater"))
    )
    assert same is not None and same.p == c.p_equivalent == pytest.approx(max(lower, upper))
    assert c.equivalent and c.as_dict()["equivalent"] is True
    assert contrasts.Equivalence.of(-d, margin).p == pytest.approx(same.p), "in either direction"
    assert same.positive == pytest.approx(1 - zero)
    # The posterior, sampled: sigma^2 from its marginal, then theta.
    draw = np.random.default_rng(0)
    variance = 9 * d.var(ddof=1) / draw.chisquare(9, 100_000)
    theta = draw.normal(d.mean(), np.sqrt(variance / 10))
    assert within_binomial(
        int((theta > margin / 3).sum()), 100_000, contrasts.Equivalence.of(d, margin / 3).above
    )
    said = conclusion(summarise(values, "ab", margin=margin), "accuracy", accuracy=True)
    assert "equals a to within 0.1 points" in said
    assert "that it is raised (by more than 0.1 points) is above 0.99 (below 0.01) for b" in said
    less = conclusion(summarise(values[::-1], "ab", margin=margin), "loss")
    assert "that it is lowered (by more than 0.001) is above 0.99 (below 0.01) for b" in less
    far = conclusion(summarise(accuracies([0, 0.005], 10), "ab", margin=margin), "accuracy", accuracy=True)
    assert "it is raised (by more than 0.1 points) is above 0.99 (above 0.99) for b" in far


def test_two_differences_are_the_fewest_that_say_anything():
    assert math.isnan(contrasts.Equivalence.of(np.ones(1), 1.0).p)
    # A t distribution with one degree of freedom is a Cauchy distribution.
    same = contrasts.Equivalence.of(np.array([-1.0, 1.0]), 1.0)
    np.testing.assert_allclose(same[1:], [0.25, 0.5, 0.25, 0.25])


def test_equivalence_is_declared_wrongly_in_at_most_5_percent_at_the_margin():
    draw, trials = np.random.default_rng(4), 3000
    data = draw.normal(1.0, 0.3, (trials, 8))
    hits = sum(contrasts.Equivalence.of(d, 1.0).p <= 0.05 for d in data)
    assert within_binomial(hits, trials, 0.05)


def test_a_difference_beyond_the_margin_is_not_said_to_lack_equality():
    """Six seeds test the primary contrast alone; the t interval of "far" is far outside the margin."""
    names = ["none", "main", "far", "near", "low"]
    values = accuracies([0, 0.005, 0.03, 0.0001, -0.03], 6)
    said = conclusion(summarise(values, names, primary="main", margin=0.0002), "accuracy", accuracy=True)
    (sentence,) = [one for one in said.split(". ") if "to equal" in one]
    assert "to test far, near and low" in said
    assert sentence.startswith("Near (corrected p") and "is not shown to equal none" in sentence
    assert "far" not in sentence and "low" not in sentence
    assert "is above 0.99 (above 0.99) for main and far; " in said


def test_a_rehearsal_says_nothing_of_equivalence():
    summary = summarise(accuracies([0, 0.03, 0.0], 8), ["none", "a", "b"], margin=0.002)
    assert "equal" in conclusion(summary, "loss") and "probability that" in conclusion(summary, "loss")
    short = conclusion(summary, "loss", rehearsal=True)
    assert "equal" not in short and "probability that" not in short


def test_what_pairing_gains_is_told():
    draw = np.random.default_rng(0)
    common = draw.normal(size=200)
    values = np.stack([common, common]) + draw.normal(0, 0.5, (2, 200))
    (c,) = summarise(values, "ab").contrasts
    assert c.correlation == pytest.approx(0.8, abs=0.1) and c.variance_ratio == pytest.approx(5, rel=0.3)
    assert "multiplied by" in pairing_sentence(summarise(values, "ab"))
    assert pairing_sentence(summarise(values[:, :3], "ab")) == ""
    assert math.isnan(summarise([[1, 1, 1, 1], [0, 1, 2, 3]], "ab").contrasts[0].correlation)


def test_another_level_moves_every_decision():
    values = np.stack([np.zeros(7), np.arange(1.0, 8.0)])
    loose, strict = (summarise(values, "ab", alpha=alpha).contrasts[0] for alpha in (0.05, 0.01))
    assert loose.significant and not strict.significant and not strict.can_claim
    assert (loose.needed, strict.needed) == (6, 8) and strict.low < loose.low


def test_a_primary_contrast_is_tested_alone_and_gates_the_others():
    """Serial gatekeeping: the primary's p is its own; the others are corrected among themselves."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=8)
    values = np.stack([base, base + 1 + 0.1 * rng.normal(size=8), base + rng.normal(size=8), base + 2])
    names = ["none", "a", "b", "c"]
    plain, guarded = summarise(values, names), summarise(values, names, primary="b")
    p = [c.p for c in plain.contrasts]
    assert guarded.contrasts[1].p_holm == p[1]
    others = np.maximum(families.holm([p[0], p[2]]), p[1])
    assert [guarded.contrasts[0].p_holm, guarded.contrasts[2].p_holm] == pytest.approx(list(others))


def test_behind_a_primary_that_is_not_significant_nothing_is_tested():
    values = accuracies([0, 0.0, 0.005], 10)
    values[1] = values[0] + 0.001 * np.array([1, -1] * 5)
    summary = summarise(values, ["none", "a", "b"], primary="a")
    assert [(c.significant, c.level) for c in summary.contrasts] == [(False, 0.05), (False, 0.0)]
    assert summary.contrasts[1].p < 0.01 and summary.contrasts[1].test_low == -math.inf
    said = conclusion(summary, "loss")
    assert "B is not tested, because a is not significant" in said and "b raises" not in said
    assert summarise(values, ["none", "a", "b"]).contrasts[1].significant


def test_with_six_seeds_only_the_primary_contrast_can_be_significant():
    values = np.zeros((4, 6)) + np.arange(4)[:, None]
    summary = summarise(values, ["none", "a", "b", "c"], primary="b")
    assert [c.can_claim for c in summary.contrasts] == [False, True, False]
    assert not summary.rehearsal
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
        hits += bool((families.corrected(list(p), 0) <= 0.05).any())
    assert hits <= tries * 0.05 + 5 * math.sqrt(tries * 0.05 * 0.95)
