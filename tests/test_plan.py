"""Plans, looks and fresh seeds: what is stated before the first epoch, and what is said when it was not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cnnjax import experiment
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, Plan, Protocol, Splits, engine
from cnnjax.experiment.ledger import Ledger
from cnnjax.experiment.plans import analysed, read_looks, read_plans, require_plan
from cnnjax.experiment.results import Results
from cnnjax.experiment.rows import read_rows
from cnnjax.models import ConvNet
from cnnjax.stats.families import ALPHA
from cnnjax.stats.plan import false_positives
from cnnjax.stats.signflip import sign_flip_p

PLAN = Plan("B is better than A.", primary="b", family=("b", "c"), margin=0.002, seeds=8)
NAMED = PLAN._replace(reference="a")


# The plan itself


def test_the_hash_is_of_the_content_and_the_same_in_every_version() -> None:
    """Pinned, because directories and papers quote it."""
    assert PLAN.sha256.startswith("cad3a50e1f18e671")
    assert Plan.of(json.loads(json.dumps(PLAN.as_dict()))) == PLAN
    assert Plan.of({k: v for k, v in PLAN.as_dict().items() if k != "reference"}) == PLAN, "of older versions"
    others = [PLAN._replace(**{name: value}) for name, value in CHANGES.items()]
    assert len({plan.sha256 for plan in (PLAN, *others)}) == 1 + len(CHANGES)


def test_a_plan_promises_what_may_be_broken() -> None:
    for name, value in {"hypothesis": "B.", "primary": "b", "margin": 0.1, "looks": (8,)}.items():
        assert Plan(seeds=8)._replace(**{name: value}).promises, name
    assert not Plan(family=("b",), seeds=8, reference="a").promises


CHANGES = {
    "hypothesis": "B is worse.",
    "metric": "val_loss",
    "primary": "c",
    "family": ("b",),
    "margin": None,
    "seeds": 9,
    "first_seed": 1,
    "looks": (4, 8),
    "reference": "a",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"primary": "a"}, "primary contrast 'a' is none of b, c"),
        ({"primary": "d"}, "primary contrast 'd' is none of b, c"),
        ({"reference": "b"}, "the plan's reference is 'b', and the run's is 'a'"),
        ({"margin": 0.0}, "--margin 0.0 must be a positive number"),
        ({"margin": float("inf")}, "--margin inf"),
        ({"first_seed": 3}, "first seed is 3, and the run's is 0"),
        ({"looks": (4, 4, 8)}, "--looks 4 4 8 must be numbers of seeds that increase"),
        ({"looks": (8, 4)}, "--looks 8 4 must"),
        ({"looks": (4, 9)}, "--looks 4 9 must"),
        ({"looks": (0, 8)}, "--looks 0 8 must"),
        (
            {"looks": (4, 6), "seeds": 6},
            "the first of --looks 4 6 has too few seeds .* level of 2.2%; look later",
        ),
        ({"looks": (7, 9), "seeds": 9, "primary": None}, "the first of --looks 7 9 has too few seeds"),
        ({"looks": (7, 9), "seeds": 9}, "--seeds 8 is none of the planned --looks 7 9"),
    ],
)
def test_impossible_plans_are_refused(changed: dict[str, object], message: str) -> None:
    require_plan(PLAN, ["a", "b", "c"], range(8))
    with pytest.raises(ArgumentError, match=message):
        require_plan(PLAN._replace(**changed), ["a", "b", "c"], range(8))


# Its levels, and the price of looks that were not planned


@pytest.mark.parametrize("looks", [(6, 8, 10), (8, 16), (5, 6, 7, 8, 9, 10)])
def test_planned_looks_keep_the_false_positives_below_5_percent(looks: tuple[int, ...]) -> None:
    plan = Plan(seeds=looks[-1], looks=looks)
    levels = [plan.level(n) for n in looks]
    np.testing.assert_allclose(sum(levels), ALPHA)
    assert all(level > 0 for level in levels)
    rng, trials = np.random.default_rng(0), 1_000
    draws = rng.standard_exponential((trials, looks[-1])) * rng.choice((-1, 1), (trials, looks[-1]))
    found = sum(
        any(sign_flip_p(row[:n], rng) <= level for n, level in zip(looks, levels, strict=True))
        for row in draws
    )
    assert found <= stats.binom.ppf(0.999, trials, ALPHA)
    with pytest.raises(ValueError, match="not in tuple"):
        plan.level(looks[-1] + 1)


def test_the_price_of_looks_is_that_of_sign_flips() -> None:
    """Peeking from 6 to 10 seeds gives 10% of false positives."""
    assert Plan().level(6) == ALPHA
    np.testing.assert_allclose(false_positives([10]), 0.05, atol=0.007)
    np.testing.assert_allclose(false_positives(range(6, 11)), 0.10, atol=0.015)
    assert false_positives([3, 4, 5]) == 0, "five pairs give no p below 1/16"
    np.testing.assert_allclose(false_positives([6]), 0.05, atol=0.007)
    assert false_positives([3, 8]) == false_positives([8])
    rng, trials = np.random.default_rng(0), 1_000
    draws = rng.standard_normal((trials, 10))
    found = sum(any(sign_flip_p(row[:n], rng) <= ALPHA for n in range(6, 11)) for row in draws)
    assert stats.binomtest(found, trials, false_positives(range(6, 11))).pvalue > 1e-3


# On disk


def opened(out: Path, plan: Plan | None, rows: int = 0, replan: bool = False, seeds: int = 8) -> Ledger:
    """Open a directory whose first `rows` seeds have a row each."""
    out.mkdir(exist_ok=True)
    ledger = Ledger(out, plan, Plan(seeds=seeds), lambda of: len([s for s in of if s < rows]), replan)
    ledger.write()
    return ledger


@pytest.mark.parametrize(
    "name", [name for name in CHANGES if name not in ("seeds", "first_seed", "reference")]
)
def test_a_change_is_refused_once_there_are_rows_or_recorded_and_stated(name: str, tmp_path: Path) -> None:
    other = PLAN._replace(**{name: CHANGES[name]})
    opened(tmp_path, other)
    opened(tmp_path, PLAN)
    assert [each.plan for each in read_plans(tmp_path)] == [PLAN], "nothing was computed under the other"
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(ArgumentError, match=rf"5 rows of another plan \(different: {name}\).*--replan"):
        opened(tmp_path, other, rows=5)
    assert (tmp_path / "plan.json").read_bytes() == before
    evidence = opened(tmp_path, other, rows=5, replan=True).look(range(8))
    assert evidence.plan == other
    assert f"The plan was changed after 5 rows ({name})." in evidence.remarks
    assert [(each.plan, each.rows) for each in read_plans(tmp_path)] == [(PLAN, 0), (other, 5)]
    assert not opened(tmp_path, PLAN, rows=6).look(range(8)).remarks, "it was there before them"
    assert opened(tmp_path, other, rows=8).look(range(8)).remarks == evidence.remarks


def test_another_reference_is_another_plan_unless_none_was_stated(tmp_path: Path) -> None:
    opened(tmp_path / "a", NAMED)
    with pytest.raises(ArgumentError, match=r"5 rows of another plan \(different: reference\)"):
        opened(tmp_path / "a", NAMED._replace(reference="b"), rows=5)
    opened(tmp_path / "b", PLAN)
    assert not opened(tmp_path / "b", NAMED, rows=5).look(range(8)).remarks


def test_what_promises_nothing_may_change_and_a_late_promise_is_stated(tmp_path: Path) -> None:
    opened(tmp_path, Plan(family=("b",), seeds=8))
    assert not opened(tmp_path, Plan(family=("b", "c"), seeds=8), rows=3).look(range(8)).remarks
    with pytest.raises(ArgumentError, match="different: hypothesis, primary, margin"):
        opened(tmp_path, PLAN, rows=4)
    late = opened(tmp_path, PLAN, rows=4, replan=True).look(range(8))
    assert late.remarks == ("The plan was changed after 4 rows (hypothesis, primary, margin).",)
    assert opened(tmp_path, None, rows=5).look(range(8)).plan == PLAN, "without one, the last is followed"


def test_a_directory_from_before_plans_may_get_one_and_tells(tmp_path: Path) -> None:
    assert not opened(tmp_path / "a", None, rows=3).look(range(8)).remarks
    remarks = opened(tmp_path / "b", PLAN, rows=3).look(range(8)).remarks
    assert remarks == ("The plan was stated after 3 rows.",)


def test_fresh_seeds_take_any_plan(tmp_path: Path) -> None:
    opened(tmp_path, PLAN).look(range(8))
    fresh = PLAN._replace(primary="c", first_seed=8)
    evidence = opened(tmp_path, fresh, rows=8).look(range(8, 14))
    assert evidence.plan == fresh and evidence.looks == (6,) and not evidence.remarks
    rows = {("a", seed, 1): {"loss": 1.0} for seed in range(20)}
    assert {seed for _, seed, _ in analysed(tmp_path, rows)} == set(range(8, 14)), "looked at last"
    (tmp_path / "looks.csv").unlink()
    assert {seed for _, seed, _ in analysed(tmp_path, rows)} == set(range(8, 16)), "planned last"
    assert [each.rows for each in read_plans(tmp_path)] == [0, 0]


def test_more_seeds_are_allowed_and_each_look_is_stated(tmp_path: Path) -> None:
    first = opened(tmp_path, PLAN._replace(seeds=6)).look(range(6))
    assert (first.looks, first.remarks) == ((6,), ())
    assert opened(tmp_path, PLAN._replace(seeds=6), rows=6).look(range(6)) == first
    for n in (7, 7, 8):
        evidence = opened(tmp_path, PLAN._replace(seeds=n), rows=6).look(range(n))
    assert evidence.looks == (6, 7, 8) and evidence.alpha == ALPHA
    (remark,) = evidence.remarks
    assert remark.startswith("The results were looked at with 6, 7 and 8 seeds, which raises false positives")
    assert [(each.seeds, each.rows) for each in read_looks(tmp_path)] == [(6, 0), (6, 6), (7, 6), (8, 6)]


def test_looks_at_other_seeds_that_share_some_are_stated(tmp_path: Path) -> None:
    assert not opened(tmp_path, PLAN).look(range(8)).remarks
    assert not opened(tmp_path, PLAN._replace(first_seed=8), rows=8).look(range(8, 16)).remarks
    for first, said in ((1, "1 overlapping range of"), (2, "2 overlapping ranges of")):
        shifted = PLAN._replace(first_seed=first, seeds=6)
        (remark,) = opened(tmp_path, shifted, rows=16, seeds=6).look(range(first, first + 6)).remarks
        assert remark.startswith(f"Results of {said} seeds were looked at too")
    (remark,) = opened(tmp_path, PLAN, rows=16).look(range(8)).remarks
    assert "2 overlapping ranges" in remark, "the first look is one of three now"


def test_planned_looks_have_their_levels(tmp_path: Path) -> None:
    plan = PLAN._replace(looks=(4, 8))
    for seeds, level, said in ((4, ALPHA / 4, "Look 1 of 2 planned"), (8, ALPHA * 3 / 4, "Look 2 of 2")):
        evidence = opened(tmp_path, plan, rows=seeds, seeds=seeds).look(range(seeds))
        np.testing.assert_allclose(evidence.alpha, level)
        assert evidence.remarks[-1].startswith(said)
    with pytest.raises(ArgumentError, match="--seeds 6 is none of the planned --looks 4 8"):
        opened(tmp_path, None, rows=8, seeds=6)


@pytest.mark.parametrize("text", ["{}", '{"plans": []}', '{"plans": [1]}', "edited"])
def test_an_edited_plan_is_refused(text: str, tmp_path: Path) -> None:
    opened(tmp_path, PLAN)
    edited = (tmp_path / "plan.json").read_text().replace("0.002", "0.02") if text == "edited" else text
    (tmp_path / "plan.json").write_text(edited)
    with pytest.raises(UserError, match=r"plan\.json was changed after it was written"):
        opened(tmp_path, PLAN)


def test_damaged_looks_are_named(tmp_path: Path) -> None:
    opened(tmp_path, PLAN).look(range(8))
    (tmp_path / "looks.csv").write_text("time,seeds\n,x\n")
    with pytest.raises(UserError, match=r"looks\.csv is damaged"):
        opened(tmp_path, PLAN).look(range(8))


# In an experiment


MODEL = ConvNet(features=(2,), hidden=(4,))
ARMS = [Arm(f"rate {rate:g}", MODEL, HParams(1e-2, rate)) for rate in (0.0, 0.5)]
PROTOCOL = Protocol(epochs=2, seeds=4, batch_size=8)
STATED = Plan("It helps.", primary="rate 0.5", family=("rate 0.5",), seeds=4)


def dataset(n: int) -> Dataset:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Dataset(images, rng.integers(0, 10, n).astype(np.int32))


SPLITS = Splits(dataset(24), dataset(8), dataset(9), {"file": "sum"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, experiment.run(ARMS, PROTOCOL, SPLITS, out, plan=STATED)


def test_the_plan_is_on_disk_before_the_first_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> Iterator[None]:
        (stated,) = read_plans(tmp_path)
        assert (stated.plan, stated.rows) == (STATED, 0) and stated.time.endswith("+00:00")
        assert json.loads((tmp_path / "protocol.json").read_text())["batch_size"] == 8
        raise MemoryError
        yield

    monkeypatch.setattr(engine, "_train_block", stop)
    with pytest.raises(MemoryError):
        experiment.run(ARMS, PROTOCOL, SPLITS, tmp_path, plan=STATED)
    assert {path.name for path in tmp_path.iterdir()} == {"environments.json", "plan.json", "protocol.json"}
    monkeypatch.setattr(engine, "_train_block", lambda *_: iter(()))
    other = replace(PROTOCOL, batch_size=4)
    experiment.run(ARMS, other, SPLITS, tmp_path, plan=STATED._replace(primary=None))
    assert [each.plan.primary for each in read_plans(tmp_path)] == [None], "nothing was there to protect"


def test_fresh_seeds_are_true_seeds_in_a_directory_of_others(
    whole: tuple[Path, Results], tmp_path: Path
) -> None:
    out, results = whole
    assert results.evidence is not None and results.evidence.plan == STATED
    second = replace(PROTOCOL, seeds=2, first_seed=2)
    fresh = experiment.run(ARMS, second, SPLITS, tmp_path)
    assert fresh.seeds == (2, 3)
    for metric, values in fresh.values.items():
        np.testing.assert_array_equal(values, results.values[metric][:, 2:])
    assert {seed for _, seed, _ in read_rows(tmp_path / "results.csv")} == {2, 3}
    both = experiment.run(ARMS, replace(PROTOCOL, seeds=2), SPLITS, tmp_path)
    assert both.seeds == (0, 1) and both.values["loss"].shape == (2, 2, 2)
    assert (tmp_path / "results.csv").read_bytes() == (out / "results.csv").read_bytes()
    assert {seed for _, seed, _ in analysed(tmp_path, read_rows(tmp_path / "results.csv"))} == {0, 1}
    assert "first_seed" not in json.loads((tmp_path / "protocol.json").read_text())


def test_another_plan_is_refused_before_anything_is_written(whole: tuple[Path, Results]) -> None:
    out, _ = whole
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(ArgumentError, match=r"16 rows of another plan \(different: primary\)"):
        experiment.run(ARMS, PROTOCOL, SPLITS, out, plan=STATED._replace(primary=None))
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(("first", "message"), [(-1, "between 0 and"), (2**32 - 3, "leaves no room for 4")])
def test_seeds_are_32_bit_numbers(first: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=rf"--first-seed {first} .*{message}"):
        replace(PROTOCOL, first_seed=first)
