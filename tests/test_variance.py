"""The decomposition of a network's variance: its intervals cover, and one source varies at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import variance
from common import start
from helpers import TINY
from scipy.stats import binom

from cnnjax import experiment
from cnnjax.experiment import Arm, Plan, Protocol
from cnnjax.experiment.plans import Evidence
from cnnjax.experiment.results import Results
from cnnjax.keys import StreamSeeds, run_streams
from cnnjax.stats.sentences import REHEARSAL
from cnnjax.stats.variance import Spread, sd_interval


def test_the_intervals_of_sd_and_share_cover_at_95_percent() -> None:
    draw, trials = np.random.default_rng(0), 2000
    found = [Spread.of(draw.normal(0, 0.6, 8), draw.normal(0, 1.0, 20)) for _ in range(trials)]
    low, high = binom.ppf(1e-5, trials, 0.95), binom.isf(1e-5, trials, 0.95)
    assert low <= sum(s.low <= 0.6 <= s.high for s in found) <= high
    assert low <= sum(s.share_low <= 0.36 <= s.share_high for s in found) <= high
    few = Spread.of(np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 3.0]))
    assert (few.n, few.sd, few.share) == (2, pytest.approx(2**0.5), pytest.approx(2))
    assert np.isnan(Spread.of(np.array([1.0]), np.arange(3.0)).sd)


@pytest.mark.parametrize("source", variance.SOURCES)
def test_one_source_varies_over_the_seeds_and_the_others_do_not(source: str) -> None:
    protocol = variance.protocol_of(source, Protocol(order_seed=7))
    own = StreamSeeds(protocol.init_seed, protocol.order_seed, protocol.mask_seed)
    one, other = (run_streams(seed, own) for seed in (3, 4))
    names = {"init": "initial weights", "shuffle": "order", "dropout": "masks"}
    varied = {words for name, words in names.items() if getattr(one, name) != getattr(other, name)}
    assert varied == {"all": set(names.values()), "split": set()}.get(source, {source})
    assert source in ("all", "order") or protocol.order_seed == 7


def test_remarks_about_looks_and_environments_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trains_nothing(arms: list[Arm], protocol: Protocol, _: object, out: Path, **__: object) -> Results:
        out.mkdir(parents=True)
        (out / "results.csv").write_text("")
        evidence = Evidence(Plan(), 0.05, (6, 8), ("Looked at twice.", f"By {arms[0].name}."))
        values = np.random.default_rng(0).random((1, protocol.seeds, 1))
        metrics = {"val_accuracy": values, "test_accuracy": values}
        return Results((arms[0].name,), tuple(protocol.numbers), 1, metrics, {}, evidence)

    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    monkeypatch.setattr(variance, "run", trains_nothing)
    arguments = ["--train-size", "64", "--dataset", "fashion_mnist", "--data-dir", str(TINY)]
    assert start(variance.Variance, {}, "", "variance.py", [*arguments, "--out", str(tmp_path)]) == 0
    said = json.loads((tmp_path / "summary.json").read_text())["conclusion"]
    assert said.endswith(" Looked at twice. By all. By initial weights. By order. By masks. By split.")
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_the_whole_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    small = ["--seeds", "2", "--epochs", "1", "--batch-size", "8", "--train-size", "64", "--quick"]
    arguments = [*small, "--dataset", "fashion_mnist", "--data-dir", str(TINY), "--out", str(tmp_path)]
    assert start(variance.Variance, variance.QUICK, "", "variance.py", arguments) == 0
    record, printed = json.loads((tmp_path / "summary.json").read_text()), capsys.readouterr().out
    assert record["rehearsal"] and record["conclusion"] == f"{REHEARSAL}." and record["protocol"] in printed
    assert list(record["sources"]) == list(variance.SOURCES)
    assert (tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 * 2 and sum(line.startswith("arm,") for line in lines) == 1


@pytest.mark.parametrize(("n", "low", "high"), [(6, 0.8312, 12.833), (11, 3.2470, 20.483)])
def test_the_interval_of_a_standard_deviation_is_that_of_its_table(n: int, low: float, high: float) -> None:
    """With the 2.5% and 97.5% quantiles of chi-squared at n - 1 degrees of freedom, as printed in tables."""
    expected = 2 * np.sqrt((n - 1) / np.array([high, low]))
    np.testing.assert_allclose(sd_interval(2.0, n), expected, rtol=1e-4)


def test_the_sentence_and_the_table_have_every_share() -> None:
    spreads = {name: Spread(20, 0.1, 0.08, 0.15, 0.5, 0.2, 1.1) for name in variance.SOURCES}
    said = variance.conclusion(spreads, 0.12, rehearsal=False)
    assert "50% for the masks (20 to 110%)" in said and REHEARSAL not in said
    assert variance.row("masks", spreads["masks"])[2:] == ["0.100 [0.080, 0.150]", "50 [20, 110]"]
    few = {name: s._replace(n=3) for name, s in spreads.items()}
    assert variance.conclusion(few, 0.12, rehearsal=False) == f"{REHEARSAL}."
    assert variance.row("order", few["order"])[2:] == ["0.100", "50"]
