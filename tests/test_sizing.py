"""How many seeds a question needs, and how long they take."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from cnnjax import cli, experiment
from cnnjax.cli.power import _time
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Plan, sizing
from cnnjax.experiment.plans import Stated, write_plans
from cnnjax.experiment.results import write_times
from cnnjax.experiment.rows import write_rows
from cnnjax.stats.equivalence import Equivalence
from cnnjax.stats.power import seeds_for
from cnnjax.stats.sizes import cautious_sd, equivalence_power, seeds_for_equivalence

TRIALS = 2_000


@pytest.mark.parametrize(
    ("margin", "n", "contrasts"), [(1.5, 6, 1), (1.0, 12, 1), (1.0, 16, 5), (0.5, 20, 1)]
)
def test_the_power_of_equivalence_is_that_of_its_test(margin: float, n: int, contrasts: int) -> None:
    draws = np.random.default_rng(n).standard_normal((TRIALS, n))
    shown = sum(Equivalence.of(row, margin).p <= 0.05 / contrasts for row in draws)
    assert stats.binomtest(int(shown), TRIALS, equivalence_power(margin, n, contrasts)).pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("contrasts", [1, 5])
def test_the_power_of_equivalence_is_its_integral_over_the_sd(n: int, contrasts: int) -> None:
    margin, t = 2.0, stats.t.isf(0.05 / contrasts, n - 1)

    def within(chi2: float) -> float:
        limit = math.sqrt(n) * margin - t * math.sqrt(chi2 / (n - 1))
        return math.erf(max(limit, 0) / math.sqrt(2)) * float(stats.chi2.pdf(chi2, n - 1))

    last = (n - 1) * n * (margin / t) ** 2  # beyond it, the interval is wider than the margin
    integral = integrate.quad(within, 0, last, limit=200)[0]
    assert equivalence_power(margin, n, contrasts) == pytest.approx(integral, abs=1e-3)


@pytest.mark.parametrize(("margin", "contrasts", "power"), [(3.0, 1, 0.8), (0.5, 5, 0.9), (0.1, 1, 0.8)])
def test_no_fewer_seeds_show_equivalence(margin: float, contrasts: int, power: float) -> None:
    n = seeds_for_equivalence(margin, contrasts, power)
    assert equivalence_power(margin, n, contrasts) >= power
    assert n == 2 or equivalence_power(margin, n - 1, contrasts) < power
    for wrong in ((0.0, 1, 0.8), (1.0, 0, 0.8), (1.0, 1, 1.0)):
        with pytest.raises(ArgumentError, match="a margin above 0"):
            seeds_for_equivalence(*wrong)
    for tiny in (0.001, 1e-12, 1e-300):
        with pytest.raises(ArgumentError, match="needs more than 1,000,000 paired seeds"):
            seeds_for_equivalence(tiny)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_the_cautious_sd_is_an_80_percent_limit(n: int) -> None:
    draws = 3 * np.random.default_rng(n).standard_normal((TRIALS, n))
    above = sum(cautious_sd(float(sd), n) > 3 for sd in draws.std(axis=1, ddof=1))
    assert stats.binomtest(int(above), TRIALS, 0.8).pvalue > 1e-3


# From a pilot


ARMS = {
    "net, max": "",
    "net, average": "net, max",
    "net, none": "net, max",
    "wide, max": "",
    "wide, none": "wide, max",
}
FAMILY = tuple(arm for arm, reference in ARMS.items() if reference)


def pilot(out: Path, plan: Plan, seeds: int = 5, diverged: bool = False) -> dict[str, np.ndarray]:
    """Write an experiment of one epoch, and return the final values of each arm."""
    out.mkdir()
    rng = np.random.default_rng(0)
    final = {arm: rng.uniform(0.9, 1.0, seeds) for arm in ARMS}
    if diverged:
        final["wide, none"][0] = np.nan
    rows = {
        (arm, seed, epoch): {"val_accuracy": float(values[seed]) * (epoch == 2), "val_loss": 1.0}
        for arm, values in final.items()
        for seed in range(seeds)
        for epoch in (1, 2)
    }
    write_rows(out / "results.csv", rows)
    write_plans(out, [Stated(plan, "now", 0)])
    return final


@pytest.mark.parametrize("diverged", [False, True])
def test_the_spread_is_that_of_the_paired_differences(tmp_path: Path, diverged: bool) -> None:
    plan = Plan(family=FAMILY, seeds=5)
    final = pilot(tmp_path / "all", plan, diverged=diverged)
    pairs = [final[arm] - final[reference] for arm, reference in ARMS.items() if reference]
    sds = {float(np.nanstd(d, ddof=1)): int(np.isfinite(d).sum()) for d in pairs}
    known = experiment.read_pilot(tmp_path / "all")
    np.testing.assert_allclose(known.sd, max(sds))
    assert (known.n, known.contrasts, known.next_seed, known.metric) == (sds[max(sds)], 3, 5, "val_accuracy")
    assert math.isnan(known.seconds)
    pilot(tmp_path / "one", plan._replace(primary="net, average"))
    write_times(tmp_path / "one", [(2, 30.0), (2, 4.0), (1, 2.0)])
    known = experiment.read_pilot(tmp_path / "one")
    np.testing.assert_allclose(known.sd, np.std(final["net, average"] - final["net, max"], ddof=1))
    assert (known.contrasts, known.seconds) == (1, 5 * 2 * 2.0), "five arms, two epochs, two seconds"
    needs = experiment.power(0.02, known, margin=0.1)
    assert [need.power for need in needs] == [0.8, 0.9]
    for need in needs:
        assert need.seeds == seeds_for(0.02 / known.sd, 1, need.power)
        assert need.cautious == seeds_for(0.02 / cautious_sd(known.sd, 5), 1, need.power)
        assert need.equivalent == seeds_for_equivalence(0.1 / known.sd, 1, need.power)
    assert experiment.power(0.02, known, contrasts=5)[0].seeds > needs[0].seeds


def test_the_command_speaks_in_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot(tmp_path / "pilot", Plan(family=FAMILY, seeds=5))
    write_times(tmp_path / "pilot", [(1, 120.0)])
    known = experiment.read_pilot(tmp_path / "pilot")
    arguments = ["power", "--pilot", str(tmp_path / "pilot"), "--effect", "5", "--margin", "6"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    first, second = experiment.power(0.05, known, margin=0.06)
    assert f"an sd of {100 * known.sd:.3g} points in 5 seeds" in printed and "3 contrasts are" in printed
    for need in (first, second):
        cells = [f"{need.power:.0%}", str(need.seeds), str(need.cautious), str(need.equivalent)]
        time = f"{need.seeds * 20 / 60:.1f} h"  # five arms, two epochs of two minutes
        assert any(all(cell in line for cell in [*cells, time]) for line in printed.splitlines()), printed
    assert "--first-seed 5" in printed
    assert cli.main(["power", "--sd", "0.2", "--effect", "0.2"]) == 0
    assert "11" in capsys.readouterr().out, "one sd, one contrast, 80%"
    assert (_time(90), _time(300), _time(9000)) == ("90 s", "5.0 min", "2.5 h")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --pilot or --sd"),
        (("--sd", "1", "--pilot", "x"), "give either --pilot or --sd"),
        (("--sd", "0"), "--sd 0 must be a positive number"),
        (("--sd", "nan"), "--sd nan must be"),
        (("--sd", "1", "--effect", "-1"), "--effect -1 must be a positive number"),
        (("--sd", "1", "--contrasts", "0"), "--contrasts 0 must be"),
        (("--sd", "1", "--margin", "0"), "--margin 0 must be"),
        (("--sd", "1e9"), "needs more than 1,000,000 paired seeds; give a larger one"),
        (("--pilot", "none"), "none: no such directory; --pilot needs that of an experiment"),
    ],
)
def test_wrong_arguments_get_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["power", "--effect", "1", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_shows_no_spread_is_no_pilot(tmp_path: Path) -> None:
    for name, plan, message in (
        ("gains", Plan(family=("gain",), seeds=5), "fewer than two pairs"),
        ("loss", Plan(metric="val_loss", family=FAMILY, seeds=5), "do not vary"),
    ):
        pilot(tmp_path / name, plan)
        with pytest.raises(ArgumentError, match=message):
            experiment.read_pilot(tmp_path / name)
    pilot(tmp_path / "single", Plan(family=FAMILY, seeds=1), seeds=1)
    with pytest.raises(ArgumentError, match="fewer than two pairs"):
        experiment.read_pilot(tmp_path / "single")
    (tmp_path / "single" / "results.csv").unlink()
    with pytest.raises(ArgumentError, match=r"has no results, and is no pilot"):
        sizing.read_pilot(tmp_path / "single")
