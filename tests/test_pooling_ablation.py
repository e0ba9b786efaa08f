"""The pooling ablation and the reproduction of the tutorials, end to end on the tiny set, and their parts."""

import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import chex
import figures
import jax
import numpy as np
import pooling_ablation as pooling
import pytest
import reproduce_tutorials as reproduce
from common import renamed
from costs import cost
from dropout_ablation import DropoutAblation
from helpers import TINY, terminal, words
from scipy import stats

from cnnjax import experiment, report
from cnnjax.cli import runner
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.data.published import published_history
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, Protocol, Splits, engine
from cnnjax.experiment.identity import identity
from cnnjax.experiment.plans import Evidence
from cnnjax.experiment.results import Predictions, Results, Store
from cnnjax.experiment.rows import METRICS
from cnnjax.models import MODELS, ConvNet
from cnnjax.plots import png
from cnnjax.plots.arms import final_by_arm
from cnnjax.stats import families

ON_TINY = ("--dataset", "fashion_mnist", "--data-dir", str(TINY), "--batch-size", "8", "--train-size", "64")
POOLED = ("--model", "lenet-swish", "--arms", "average", "none", "--seeds", "2", "--epochs", "1")
REPRODUCED = ("--seeds", "2", "--epochs", "2", "--second-epochs", "1")


@pytest.fixture(autouse=True)
def devices_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)


def trains_nothing(
    arms: Sequence[Arm],
    protocol: Protocol,
    splits: Splits,
    out: Path,
    *,
    chunk: int | None = None,
    probes: Mapping[str, Dataset] | None = None,
    on_nan: experiment.OnNan = "stop",
    report: experiment.Report = lambda done, total: None,
    plan: experiment.Plan | None = None,
    replan: bool = False,
) -> Results:
    """Stand in for `experiment.run` with random numbers; only the report is under test."""
    out.mkdir(parents=True)
    store, rng = Store(out, {}), np.random.default_rng(0)
    last = ["test", *(probes or {})]
    for arm, seed, epoch in product(arms, range(protocol.seeds), range(protocol.epochs)):
        parts = ["", "train_", "val_", *(f"{name}_" for name in last if epoch + 1 == protocol.epochs)]
        names = [part + metric for part in parts for metric in ("loss", "accuracy")]
        store.rows[arm.name, seed, epoch + 1] = {name: float(rng.random()) for name in names}
        said = rng.integers(0, 10, len(splits.test.labels)).astype(np.uint8)
        store.keep(arm.name, seed, Predictions(said, rng.random(len(said), np.float32)))
    store.write()
    results = Store(out, {}).results([arm.name for arm in arms], range(protocol.seeds), protocol.epochs)
    evidence = Evidence(plan or experiment.Plan(), families.ALPHA, (6, 8), ("Looked at twice.",))
    return results._replace(evidence=evidence)


def two_launches(arms: Callable[[], list[Arm]], *_: Any, **__: Any) -> np.ndarray:
    """Stand in for the times: 1, 2, 3, ... ms in one launch, and 2 ms each in the other."""
    count = len(pickle.loads(pickle.dumps(arms))())  # as it is sent to the process of a launch
    return np.stack([np.arange(1.0, count + 1), np.full(count, 2.0)], axis=1)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pooling, reproduce):
        monkeypatch.setattr(module, "milliseconds_by_launch", two_launches)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare what is not about figures their drawing."""
    monkeypatch.setattr(report, "draw", lambda *_: None)


@pytest.fixture
def untrained(untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "run", trains_nothing)


def main(command_: type, *arguments: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = runner.run(command_, "", [*ON_TINY, *arguments])
    assert (code, err.getvalue()) == (0, ""), err.getvalue()
    return out.getvalue()


def refused(command_: type, *arguments: str, code: int = 2) -> str:
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err):
        assert runner.run(command_, "", [*ON_TINY, *arguments]) == code
    return err.getvalue()


def check_pooled(out: Path, printed: str) -> None:
    lines = (out / "results.csv").read_text().splitlines()
    assert lines[0].split(",") == [
        *("arm", "seed", "epoch", *METRICS),
        *("shift_1_accuracy", "shift_1_loss", "shift_2_accuracy", "shift_2_loss"),
    ]
    assert len(lines) == 1 + 3 * 2
    record = json.loads((out / "summary.json").read_text())["lenet-swish"]
    assert [arm["name"] for arm in record["val_accuracy"]["arms"]] == ["max", "average", "none"]
    assert record["costs"]["none"]["flops"] == cost(MODELS["lenet-swish"].clone(pooling="none")).flops
    assert {path.name for path in out.glob("*.png")} == {
        f"lenet-swish-{name}.png"
        for name in ("accuracy_by_arm", "cost_against_accuracy", "shift_sensitivity", "confused")
    }
    for question, answer in record["answers"].items():
        assert question in printed and answer in printed
    average, none = record["val_accuracy"]["contrasts"]
    answers = record["answers"]
    answer = answers["Would the average keep more than the maximum?"]
    assert f"{100 * average['difference']:+.2f} points" in answer
    assert f"{100 * none['difference']:+.2f} points" in answers["Is no pooling at all more exact?"]
    assert f"{record['gap']['contrasts'][1]['difference']:+.4f}" in answers["Does pooling fight overfitting?"]
    assert "5.0 times the operations" in answers["Does it save weights and work?"]
    assert "2.0 (1.0 to 3.0) times as long (n=2 launches)" in answers["Does it save weights and work?"]
    assert record["costs"]["none"]["milliseconds_by_launch"] == [3, 2] and "2.50 (2.00 to 3.00)" in printed
    assert "Would the median?" not in answers
    assert "confuses 3 and 5" in printed


def check_reproduced(out: Path, printed: str) -> None:
    lines = (out / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 2 + 2 and sum(line.startswith("arm,") for line in lines) == 1
    record = json.loads((out / "summary.json").read_text())
    assert list(record) == ["rate 0", "rate 0.5", "lenet-swish"]
    assert {path.name for path in out.glob("*.png")} == {f"{name.replace(' ', '-')}.png" for name in record}
    assert record["rate 0"]["final validation loss"]["published"] is None, "nothing was published of this set"
    assert "not the published protocol" in printed
    assert record["rate 0.5"]["microseconds_by_launch"] == [250, 250]
    assert "188 (125 to 250) µs per training image on one core, n=2 launches" in printed


@pytest.mark.usefixtures("untrained")
def test_the_ablation_reports_and_saves_its_measurements(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_pooled(out, main(pooling.PoolingAblation, *POOLED, "--out", str(out)))


@pytest.mark.usefixtures("untrained", "undrawn")
def test_the_report_fits_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = main(pooling.PoolingAblation, *POOLED, "--out", "plain")
    with terminal(monkeypatch) as lines:
        assert runner.run(pooling.PoolingAblation, "", [*ON_TINY, *POOLED, "--out", "out"]) == 0
    assert not [line for line in lines if len(line) > 80]
    bar = {"network", "epochs", "elapsed", "left", "out"}
    assert words(" ".join(lines)) - words(plain) <= bar


@pytest.mark.slow
@pytest.mark.usefixtures("untrained", "undrawn")
def test_every_question_is_answered_on_both_networks(tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(pooling.PoolingAblation, "--epochs", "1", "--out", str(out))
    record = json.loads((out / "summary.json").read_text())
    assert list(record) == ["keras-cnn", "lenet-swish"]
    for network in record.values():
        assert len(network["answers"]) == 10
        assert len(network["val_accuracy"]["contrasts"]) == 5
        contrasts = network["val_accuracy"]["contrasts"]
        assert all(c["can_claim"] and c["family"] == 10 and c["n"] == 11 for c in contrasts)
    p = [c["p"] for network in record.values() for c in network["val_accuracy"]["contrasts"]]
    p_holm = [c["p_holm"] for network in record.values() for c in network["val_accuracy"]["contrasts"]]
    assert p_holm == pytest.approx(list(families.holm(p))), "ten contrasts are one family"


@pytest.mark.usefixtures("untrained")
def test_the_dropout_ablation_takes_an_optimizer_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "out"
    chosen = ("--optimizer", "sgd", "--learning-rate", "0.1", "--momentum", "0.9", "--schedule", "cosine")
    printed = main(DropoutAblation, *chosen, "--epochs", "2", "--mask-seed", "3", "--out", str(out))
    caption = (
        "keras-cnn on fashion_mnist, inverted dropout, 64 training images, batch 8, sgd 0.1, cosine "
        "schedule, momentum 0.9, 2 epochs, 6 paired seeds, mask seed 3 in all"
    )
    record = json.loads((out / "summary.json").read_text())
    assert record["protocol"] == caption and caption in printed and record["conclusion"] in printed
    assert "confused" in record and [arm["name"] for arm in record["val_loss"]["arms"]][1] == "rate 0.25"
    drawn = "val_loss", "val_accuracy", "generalisation_gap", "accuracy_against_rate", "confused"
    assert {path.stem for path in out.glob("*.png")} == set(drawn)
    assert "--optimizer adma is unknown" in refused(DropoutAblation, "--optimizer", "adma")


def test_a_flag_that_the_optimizer_does_not_read_is_refused(tmp_path: Path) -> None:
    out = str(tmp_path / "x")
    for command_ in (DropoutAblation, pooling.PoolingAblation):
        assert "--momentum 0.9 does nothing" in refused(command_, "--momentum", "0.9", "--out", out)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("reuse", [False, True])
def test_the_reproduction_reports_and_saves_its_measurements(tmp_path: Path, reuse: bool) -> None:
    out = tmp_path / "out"
    flags = ("--reuse", str(tmp_path / "ablation")) * reuse
    printed = main(reproduce.ReproduceTutorials, *REPRODUCED, *flags, "--out", str(out))
    check_reproduced(out, printed)
    assert printed.count("Looked at twice.") == 3, "once a network"


def test_the_first_tutorials_runs_are_members_of_the_dropout_ablation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise `--reuse` would train them again."""
    identities = []

    def noted(arms: Sequence[Arm], protocol: Protocol, splits: Splits, *_: object, **__: object) -> None:
        identities.append(identity(arms, protocol, splits))
        raise UserError("enough")

    monkeypatch.setattr(experiment, "run", noted)
    for command_ in (DropoutAblation, reproduce.ReproduceTutorials):
        refused(command_, "--out", str(tmp_path), code=1)
    theirs, ours = identities
    assert {name: theirs[name] for name in ours} == ours


@pytest.mark.slow
@pytest.mark.usefixtures("untimed")
def test_both_train_and_a_second_start_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command_, flags, check in (
        (pooling.PoolingAblation, POOLED, check_pooled),
        (reproduce.ReproduceTutorials, REPRODUCED, check_reproduced),
    ):
        out = tmp_path / command_.__name__
        check(out, main(command_, *flags, "--out", str(out)))
        before = (out / "results.csv").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_train_block", lambda *_: pytest.fail("trained again"))
            check(out, main(command_, *flags, "--out", str(out)))
        assert (out / "results.csv").read_bytes() == before


def test_an_unknown_arm_is_refused(tmp_path: Path) -> None:
    error = refused(pooling.PoolingAblation, "--arms", "min", "--out", str(tmp_path / "x"))
    assert "'min' is unknown; use one of 'max', 'average'" in error
    assert not (tmp_path / "x").exists()


def test_arms_differ_in_their_pooling_alone() -> None:
    for model in MODELS.values():
        arms = pooling.pooling_arms(model)
        assert tuple(arms) == pooling.ARMS
        assert {arm: m.pooling for arm, m in arms.items()} == {
            **{name: name for name in ("max", "average", "median", "strided", "none")},
            "none, same size": "none",
        }
        for arm in pooling.ARMS[:-1]:
            assert arms[arm].clone(pooling="max") == model.clone(dropout="none")
        size = cost(model).parameters
        assert cost(arms["none, same size"]).parameters == pytest.approx(size, rel=0.07)


def test_a_model_without_masks_is_the_one_of_rate_zero(key: jax.Array) -> None:
    model = ConvNet(features=(2,), hidden=(4,))

    @jax.jit
    def both(key: jax.Array) -> tuple[Any, Any]:
        images = jax.random.uniform(key, (3, 8, 8, 1))
        params = model.init(key, images)
        apply = partial(model.apply, params, images, train=True, rngs={"dropout": key})
        none = model.clone(dropout="none").apply(params, images, train=True, dropout_rate=0.5)
        return apply(dropout_rate=0.0), none

    chex.assert_trees_all_equal(*both(key))


@pytest.mark.parametrize("pixels", [1, 2])
def test_a_quarter_of_the_images_moves_each_way(pixels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (9, 8, 8, 1), dtype=np.uint8)
    moved = pooling.shifted(Dataset(images, np.arange(9, dtype=np.int32)), pixels)
    np.testing.assert_array_equal(moved.labels, np.arange(9))
    for i, image in enumerate(moved.images):
        axis, step = ((0, -pixels), (0, pixels), (1, -pixels), (1, pixels))[i % 4]
        rolled = np.roll(images[i], step, axis=axis)
        edge = slice(0, step) if step > 0 else slice(step, None)
        rolled[(slice(None),) * axis + (edge,)] = 0
        np.testing.assert_array_equal(image, rolled)


@pytest.mark.slow
def test_a_probe_is_measured_after_the_last_epoch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    data = Dataset(images, rng.integers(0, 10, 24).astype(np.int32))
    arm = Arm("a", ConvNet(features=(2,), hidden=(4,)), HParams(1e-2, 0.0), "rmsprop")
    protocol, splits = Protocol(epochs=2, seeds=2, batch_size=8), Splits(data, data, data, {})
    results = experiment.run([arm], protocol, splits, tmp_path, probes={"again": data})
    np.testing.assert_array_equal(results.final("again_loss"), results.final("test_loss"))
    assert np.isnan(results.values["again_loss"][:, :, 0]).all()
    said = results.predictions["a"]
    assert said.labels.shape == said.probability.shape == (2, 24)
    right = (said.labels == data.labels[None]).mean(axis=1)
    np.testing.assert_allclose(right, results.final("test_accuracy")[0], rtol=1e-6)
    with pytest.raises(ArgumentError, match="arm a"):
        experiment.run([replace(arm, optimizer="adam")], protocol, splits, tmp_path)
    (tmp_path / "predictions" / "a, seed 0.npz").write_bytes(b"PK damaged")
    again = experiment.run([arm], protocol, splits, tmp_path, probes={"again": data})
    chex.assert_trees_all_equal(again.predictions["a"], said)


def test_arms_of_another_optimizer_have_a_program_of_their_own() -> None:
    arm = Arm("a", ConvNet(), HParams(1e-2, 0.0))
    other = replace(arm, name="b", optimizer="rmsprop")
    assert engine._groups([arm, other, replace(arm, name="c")]) == [
        [arm, replace(arm, name="c")],
        [other],
    ]


def test_arms_may_be_taken_out_of_results_under_other_names() -> None:
    said = Predictions(np.zeros((1, 3), np.uint8), np.ones((1, 3), np.float32))
    results = Results(("a", "b"), (0,), 1, {"loss": np.array([[[1.0]], [[2.0]]])}, {"b": said})
    only = renamed(results, {"b": "new"})
    assert only.arms == ("new",) and only.predictions == {"new": said}
    np.testing.assert_array_equal(only.values["loss"], [[[2.0]]])


def test_results_without_predictions_are_reported_without_them(tmp_path: Path, capsys) -> None:
    assert report.print_confusions({}, Dataset(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int32))) == {}
    assert capsys.readouterr().out == ""


def test_the_directory_reused_is_not_written_over(tmp_path: Path) -> None:
    same = str(tmp_path / "x")
    assert "give another --out" in refused(reproduce.ReproduceTutorials, "--reuse", same, "--out", same)
    assert not (tmp_path / "x").exists()


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    assert "--seeds 1" in refused(reproduce.ReproduceTutorials, "--seeds", "1", "--out", str(tmp_path / "x"))


def test_the_prediction_interval_holds_the_next_run_95_times_in_100() -> None:
    draws = np.random.default_rng(0).normal(30.0, 2.0, (7, 20_000))
    low, high = reproduce.prediction_interval(draws[:6])
    held = int(np.sum((low <= draws[6]) & (draws[6] <= high)))
    assert stats.binomtest(held, 20_000, 0.95).pvalue > 1e-4
    low, high = reproduce.prediction_interval(np.array([0.01, 0.99, 0.01, 0.99]), images=100)
    assert (low, high) == (0.0, 1.0), "no accuracy lies beyond"
    assert np.isnan(reproduce.prediction_interval(draws[:3])).all()


@pytest.mark.parametrize("runs", [4, 6, 10])
@pytest.mark.parametrize("sd", [0.0002, 0.0008, 0.0015, 0.004])
def test_the_prediction_interval_of_accuracies_counts_other_images(runs: int, sd: float) -> None:
    """Runs of 0.985 +- sd on 12,000 images of ours, which they share, and one on others."""
    draw, trials, images = np.random.default_rng(0), 20_000, 12_000
    *true, other = draw.normal(0.985, sd, (runs + 1, trials))
    ours, theirs = draw.normal(0, np.sqrt(0.985 * 0.015 / images), (2, trials))
    low, high = reproduce.prediction_interval(np.stack(true) + ours, images)
    held = np.mean((low <= other + theirs) & (other + theirs <= high))
    assert 0.93 < held < 0.957


def test_the_published_run_is_compared_with_ours() -> None:
    log = published_history("keras-cnn", "mnist", 0.0)
    assert log is not None
    metrics = ("loss", "accuracy", "val_loss", "val_accuracy")
    curve = {metric: np.array([row[metric] for row in log]) for metric in metrics}
    ours = {metric: values + np.array([[-1e-3], [0.0], [0.0], [1e-3]]) for metric, values in curve.items()}
    compared = {c.measure: c for c in reproduce.compare(ours, log, (48_000, 12_000))}
    assert all(c.within for c in compared.values())
    assert compared["best validation loss"].published == 0.0587
    assert compared["epoch of the best"].published == 7
    assert compared["final validation accuracy"].published == 0.9837
    shifted = {metric: values + (0.1 if "loss" in metric else -0.1) for metric, values in ours.items()}
    compared = reproduce.compare(shifted, log, (48_000, 12_000))
    assert [c.measure for c in compared if c.within] == ["epoch of the best"]
    assert all(c.within is None for c in reproduce.compare(ours, None, (1, 1)))


def test_figures_of_arms_show_all_they_are_given() -> None:
    values = np.array([[0.9, 0.8, np.nan], [0.7, 0.75, 0.8], [0.95, 0.96, 0.97]])
    names = ["max", "average", "none, same size"]
    figure = final_by_arm(values, names, "accuracy")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "max",
        "average",
        "none, same size",
    ]
    costs = {"operations": [10, 10, 1000], "parameters": [5.0, 6.0, 7.0]}
    figure = figures.against_costs(costs, values, names, "accuracy")
    for axis, numbers in zip(figure.axes, costs.values(), strict=True):
        drawn = [float(np.asarray(line[0].get_xdata())[0]) for line in axis.containers]
        assert drawn == list(map(float, numbers))
    figure = figures.shift_sensitivity(np.stack([values, values - 0.1, values - 0.3]), names)
    for line in figure.axes[0].containers:
        np.testing.assert_allclose(np.asarray(line[0].get_ydata()), [0, 10, 30], atol=1e-9)
    assert png(figure).startswith(b"\x89PNG")
