"""Power is that of the rule that decides: sign flips with Holm's correction."""

import math

import numpy as np
import pytest
from scipy.stats import nct, norm, t
from snippets import ROOT

from cnnjax.errors import ArgumentError
from cnnjax.stats import families, power, summarise

# Seeds for 80%, simulated apart from this code: the sign-flip test at 5% / contrasts on normal differences.
SEEDS = {
    2: (6, 7, 8, 9),
    1.5: (7, 9, 10, 11),
    1: (11, 14, 16, 18),
    0.75: (17, 22, 26, 28),
    0.5: (34, 46, 52, 58),
}


@pytest.mark.parametrize(("effect", "contrasts"), [(e, m) for e in SEEDS for m in (1, 3, 5, 10)])
def test_seeds_for_80_percent_are_those_known(effect, contrasts):
    known = dict(zip((1, 3, 5, 10), SEEDS[effect], strict=True))[contrasts]
    assert abs(power.seeds_for(effect, contrasts) - known) <= 1


def test_the_table_of_the_page_is_that_of_seeds_for():
    page = (ROOT / "docs/explanation/pairs-and-seeds.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    (_, *heads), _, *rows = lines
    contrasts = [int(head.split()[0]) for head in heads]
    assert contrasts == [1, 3, 5, 10] and [float(row[0]) for row in rows] == list(SEEDS)
    for effect, *cells in rows:
        assert [int(cell) for cell in cells] == [power.seeds_for(float(effect), m) for m in contrasts]


@pytest.mark.parametrize("contrasts", [1, 5])
def test_counting_one_by_one_finds_no_fewer_seeds(contrasts):
    numbers, level = np.arange(families.needed([0] * contrasts), 250), 0.05 / contrasts
    critical = t.ppf(1 - level / 2, numbers - 1)
    for effect in np.geomspace(0.25, 0.8, 8):
        near = numbers[nct.sf(critical, numbers - 1, effect * np.sqrt(numbers)) >= 0.8]
        counted = next(n for n in near if power.power(effect, int(n), contrasts) >= 0.8)
        assert power.seeds_for(effect, contrasts) == counted


def test_tiny_effects_have_an_answer_up_to_a_million_seeds():
    """Of a normal distribution, whose quantiles are 1.960 and 0.842: (2.802 / effect) ** 2."""
    assert power.seeds_for(0.003) == pytest.approx((2.8016 / 0.003) ** 2, rel=1e-3)
    for effect in (0.0028, 1e-12, 1e-300):
        with pytest.raises(ArgumentError, match=r"needs more than 1,000,000 paired seeds; give a larger one"):
            power.seeds_for(effect)
    assert power.seeds_for(0.2, power=0.01) == 6, "no more than the fewest"


@pytest.mark.parametrize(
    ("effect", "n", "powers"),
    [(1.435, 6, (0.63, 0, 0)), (1.156, 8, (0.78, 0.54, 0.34)), (0.996, 10, (0.79, 0.57, 0.48))],
)
def test_power_is_that_of_the_deciding_rule(effect, n, powers):
    assert [power.power(effect, n, m) for m in (1, 3, 5)] == pytest.approx(powers, abs=0.03)
    assert power.power(0, n) <= 0.06


@pytest.mark.parametrize("n", [6, 7])
def test_power_where_it_is_known_exactly(n):
    """At 6 and 7 pairs p is small enough only if all differences have one sign (at 7: or k = 1)."""
    level = 2 / 2**n
    exact = norm.cdf(1.2) ** n + norm.cdf(-1.2) ** n
    assert power.power(1.2, n, alpha=level) == pytest.approx(exact, abs=0.03)


def test_the_rule_itself_finds_the_detectable_difference_in_80_percent():
    draw, n, m, trials = np.random.default_rng(0), 8, 3, 400
    shift = power.detectable(n, m)
    names, hits = [str(i) for i in range(m + 1)], 0
    for _ in range(trials):
        differences = draw.normal(size=(m, n))
        differences[0] += shift
        hits += summarise(np.concatenate([np.zeros((1, n)), differences]), names).contrasts[0].significant
    assert hits / trials == pytest.approx(0.8, abs=5 * math.sqrt(0.16 / trials))


def test_simulated_power_continues_in_that_of_the_t_test():
    n = power.SIMULATED_UP_TO
    for effect, m in ((0.6, 1), (0.8, 5), (0.9, 10)):
        assert power.power(effect, n, m) == pytest.approx(power._t_power(effect, n, 0.05 / m), abs=0.025)
    assert power.detectable(n + 1, 5) == pytest.approx(power.detectable(n, 5), rel=0.06)


def test_more_seeds_find_smaller_differences_and_contrasts_larger_ones():
    sizes = [power.detectable(n, 3) for n in (7, 8, 10, 14, 20, 30, 60)]
    assert (np.diff(sizes) < 0).all()
    assert power.detectable(12, 1) < power.detectable(12, 3) < power.detectable(12, 10)
    assert math.isnan(power.detectable(5)) and math.isnan(power.detectable(0)) and power.power(9, 5) == 0


@pytest.mark.parametrize(
    ("effect", "contrasts", "wanted"), [(0, 1, 0.8), (math.nan, 1, 0.8), (1, 0, 0.8), (1, 1, 1)]
)
def test_what_cannot_be_planned_is_refused(effect, contrasts, wanted):
    with pytest.raises(ArgumentError):
        power.seeds_for(effect, contrasts, wanted)
