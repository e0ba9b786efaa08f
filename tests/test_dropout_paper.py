"""The dropout paper's MNIST section: training rules against NumPy, tables, whole runs on tiny data."""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import chex
import dropout_paper
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY
from hypothesis import given
from hypothesis import strategies as st
from paper import analysis, comparison, items
from paper.figures import beside_paper, error_lines
from paper.sampling import error_by_samples
from paper.training import (
    FIRST_MOMENTUM,
    LATE,
    NO_LIMIT,
    RISE,
    SPARSE,
    FullyConnected,
    HParams,
    learning_rate_at,
    momentum_at,
    momentum_sgd,
    penalised,
    projected,
    sparsity_penalty,
)

from cnnjax import experiment
from cnnjax.cli import runner
from cnnjax.data import Dataset
from cnnjax.dropout import gaussian_dropout
from cnnjax.experiment import checks, engine
from cnnjax.keys import Masks, run_streams, streams
from cnnjax.task import Task, init_state

SMALL = FullyConnected((16, 8))


@given(st.floats(0.1, 10), st.integers(0, 2**31))
def test_max_norm_shortens_long_columns_and_leaves_short_ones(limit: float, seed: int) -> None:
    kernel = np.random.default_rng(seed).normal(size=(6, 5)).astype(np.float32)
    norms = np.linalg.norm(kernel, axis=0)
    shortened = np.asarray(projected(jnp.asarray(kernel), jnp.float32(limit)))
    np.testing.assert_allclose(np.linalg.norm(shortened, axis=0), np.minimum(norms, limit), rtol=1e-5)
    np.testing.assert_allclose(
        shortened / np.linalg.norm(shortened, axis=0), kernel / norms, rtol=1e-4, atol=1e-6
    )


def test_a_column_of_zeros_stays(key: jax.Array) -> None:
    chex.assert_trees_all_equal(projected(jnp.zeros((3, 2)), 1.0), jnp.zeros((3, 2)))


def test_momentum_rises_along_a_line_and_the_learning_rate_falls_to_zero() -> None:
    hparams = HParams(learning_rate=0.4, momentum=0.9)
    done = np.array([0, RISE / 2, RISE, 1, 2])
    momentum = [float(momentum_at(each, hparams)) for each in done]
    np.testing.assert_allclose(momentum, [FIRST_MOMENTUM, 0.7, 0.9, 0.9, 0.9], rtol=1e-6)
    rates = [float(learning_rate_at(each, hparams)) for each in done]
    np.testing.assert_allclose(rates, 0.4 * np.array([1, 1 - RISE / 2, 1 - RISE, 0, 0]), rtol=1e-6)


def test_an_update_is_the_papers_in_numpy(key: jax.Array) -> None:
    hparams = HParams(learning_rate=0.5, updates=8.0, momentum=0.9, max_norm=1.0, l2=0.1, l1=0.01)
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    optimizer = momentum_sgd(hparams)
    ours = jax.tree.map(jnp.float32, params)
    state, velocity = optimizer.init(ours), jax.tree.map(np.zeros_like, params)
    for number in range(8):
        gradient = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradient), state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
        done, w = number / 8, params["kernel"]
        gradient["kernel"] = gradient["kernel"] + 0.1 * w + (0.01 * np.sign(w) if done >= LATE else 0)
        momentum = 0.5 + 0.4 * min(1, done / RISE)
        velocity = {name: momentum * velocity[name] + gradient[name] for name in params}
        params = {name: params[name] - 0.5 * (1 - done) * velocity[name] for name in params}
        params["kernel"] *= np.minimum(1, 1 / np.linalg.norm(params["kernel"], axis=0))
        chex.assert_trees_all_close(ours, jax.tree.map(np.float32, params), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("logistic", [False, True])
def test_the_sparsity_penalty_is_a_divergence_from_the_target(logistic: bool) -> None:
    q = np.array([0.01, SPARSE, 0.3, 0.9])
    expected = SPARSE * np.log(SPARSE / q) - SPARSE + q
    slope = 1 - SPARSE / q
    if logistic:
        expected = SPARSE * np.log(SPARSE / q) + (1 - SPARSE) * np.log((1 - SPARSE) / (1 - q))
        slope = (1 - SPARSE) / (1 - q) - SPARSE / q
    both = jax.jit(jax.value_and_grad(sparsity_penalty), static_argnums=1)
    value, gradient = both(np.float32(q), logistic)
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-3)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-4)
    assert float(both(np.array([SPARSE], np.float32), logistic)[0]) == pytest.approx(0, abs=1e-5)


def test_a_penalty_changes_the_gradient_and_not_the_value() -> None:
    x = jnp.arange(4.0)

    def loss(x: jax.Array, weight: float) -> jax.Array:
        return jnp.sum(penalised(x, weight * jnp.sum(x**2)) * 3)

    assert float(loss(x, 5.0)) == float(loss(x, 0.0)) == 18
    np.testing.assert_allclose(jax.grad(loss)(x, 5.0), 3 + 10 * x)


def test_sparsity_makes_hidden_units_quieter(key: jax.Array) -> None:
    images = jax.random.uniform(key, (20, 4, 4, 1))
    params = jax.jit(partial(SMALL.init, train=False, hparams=HParams()))(key, images)["params"]
    masks = Masks(streams(key).dropout)

    @jax.jit
    @jax.grad
    def gradient(params: Any, sparsity: jax.Array) -> jax.Array:
        hparams = HParams(input_rate=0.0, hidden_rate=0.0, sparsity=sparsity)
        logits = SMALL.apply({"params": params}, images, train=True, hparams=hparams, masks=masks)
        return jnp.sum(jnp.asarray(logits))

    def penalty(params: Any) -> float:
        hidden = jax.nn.relu(images.reshape(20, -1) @ params["Dense_1"]["kernel"])  # its bias is 0
        return 20 * float(sparsity_penalty(hidden.mean(0), False))

    plain, with_penalty = (gradient(params, jnp.float32(sparsity)) for sparsity in (0, 1))
    towards = jax.tree.map(lambda a, b: b - a, plain, with_penalty)
    moved = jax.tree.map(lambda w, g: w - 1e-4 * g, params, towards)
    assert penalty(moved) < penalty(params)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_gaussian_noise_has_mean_one_and_the_variance_of_dropout(key: jax.Array, rate: float) -> None:
    noise = np.asarray(jax.jit(gaussian_dropout)(key, jnp.ones((400, 500)), rate), float)
    variance = rate / (1 - rate)
    assert noise.mean() == pytest.approx(1, abs=5 * np.sqrt(variance / noise.size))
    assert noise.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / noise.size))


def test_masks_of_a_seed_are_shared_by_arms_and_nested_over_rates(key: jax.Array) -> None:
    images, identity = jnp.ones((8, 4, 4, 1)), {"kernel": jnp.eye(16, 8), "bias": jnp.zeros(8)}
    network = FullyConnected((8,), classes=8)
    params = {"Dense_1": identity, "Logits": {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}}

    @jax.jit
    def logits(rate: jax.Array, step: jax.Array) -> Any:
        hparams, masks = HParams(input_rate=0.0, hidden_rate=rate), Masks(streams(key).dropout, step)
        return network.apply({"params": params}, images, train=True, hparams=hparams, masks=masks)

    def kept(rate: float, step: int = 0) -> np.ndarray:
        return np.asarray(logits(jnp.float32(rate), jnp.int32(step))) > 0

    assert 0 < kept(0.7).sum() < kept(0.3).sum() < 64 and not np.any(kept(0.7) & ~kept(0.3))
    assert np.any(kept(0.5) != kept(0.5, step=1))


def test_every_published_error_belongs_to_an_arm() -> None:
    for item in items.ITEMS.values():
        assert set(item.published) <= set(item.arms)
        assert item.primary is None or item.primary in tuple(item.arms)[1:]
    assert items.weights(items.THREE) == 784 * 1024 + 1024**2 + 1024 * 2048 + 20480
    assert items.TABLE9.arms["dropout + max-norm"][1].max_norm < NO_LIMIT == items.PLAIN.max_norm


def test_an_error_agrees_if_one_more_run_could_have_it() -> None:
    errors = {"a": np.array([0.010, 0.011, 0.012, 0.013]), "b": np.array([0.02, 0.02, 0.02, np.nan, 0.02])}
    a, b = comparison.compared(errors, {"a": 1.1, "b": 1.6})
    assert a.within and b.within is False and len(b.ours) == 4 and b.ours.mean() == pytest.approx(2)
    said = comparison.agreement([a, b])
    assert "Of 2 published errors, 1 lies in" in said and "1 below it and 0 above" in said
    assert comparison.agreement(comparison.compared(errors, {})) == ""


def test_repeating_keeps_every_image_equally_often() -> None:
    data = Dataset(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), np.arange(3, dtype=np.int32))
    assert np.bincount(analysis.repeated(data, 12).labels).tolist() == [4, 4, 4]


@pytest.mark.slow
def test_without_dropout_every_sample_is_the_network_itself() -> None:
    hparams = HParams(input_rate=0.0, hidden_rate=0.0)
    task, rng = Task(SMALL, momentum_sgd), np.random.default_rng(0)
    data = Dataset(rng.integers(0, 256, (30, 4, 4, 1), np.uint8), rng.integers(0, 10, 30).astype(np.int32))
    state = init_state(task, run_streams(0), (4, 4, 1), hparams)
    logits = SMALL.apply(
        {"params": state.params}, data.images / np.float32(255), train=False, hparams=hparams
    )
    error = np.mean(np.asarray(logits).argmax(1) != data.labels)
    np.testing.assert_allclose(error_by_samples(task, 3)(state, hparams, data), error)
    noisy = error_by_samples(task, 3)(state, HParams(hidden_rate=0.9), data)
    assert noisy.shape == (3,) and np.all((noisy >= 0) & (noisy <= 1))


def test_figures_show_our_means_and_the_published_errors() -> None:
    errors = {"a": np.array([1.0, 1.2, 1.1, np.nan, 1.3]), "b": np.array([2.0, 2.1, 2.2, 2.3, 2.4])}
    (axis,) = beside_paper(errors, {"b": 2.05}).axes
    drawn = {line.get_label(): np.asarray(line.get_xdata(), float) for line in axis.lines}
    np.testing.assert_allclose(drawn["published"], [np.nan, 2.05])
    means = next(np.asarray(line.get_xdata()) for line in axis.lines if line.get_marker() == "o")
    np.testing.assert_allclose(means, [1.15, 2.2])
    (axis,) = error_lines({"a": (np.array([1, 10]), np.stack(list(errors.values())))}, "n", log=True).axes
    np.testing.assert_allclose(np.asarray(axis.lines[0].get_ydata(), float), [1.15, 2.2])


def arguments(out: Path, *more: str) -> list[str]:
    small = ["--quick", "--dataset", "fashion_mnist", "--data-dir", str(TINY), "--train-size", "200"]
    return [*small, "--out", str(out), *more]


def start(*given: str) -> int:
    return dropout_paper.start(dropout_paper.DropoutPaper, dropout_paper.QUICK, "", "x", given)


def test_the_plan_is_there_before_the_first_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    seen: list[dict[str, Any]] = []

    def stop(*_: Any) -> Any:
        seen.append(json.loads((tmp_path / "out/table9/plan.json").read_text())["plans"][0]["plan"])
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_train_block", stop)
    assert start(*arguments(tmp_path / "out", "--item", "table9")) == 130
    (plan,) = seen
    assert (
        plan["metric"] == "test_accuracy" and plan["primary"] == "dropout + max-norm" and plan["seeds"] == 2
    )
    assert plan["margin"] == items.MARGIN and plan["hypothesis"] == items.TABLE9.question


@pytest.mark.parametrize(("flag", "value"), [("--item", "table11"), ("--seeds", "1")])
def test_mistakes_are_refused(
    flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert runner.run(dropout_paper.DropoutPaper, "", [flag, value, "--out", str(out)]) == 2
    assert f"{flag} {value}" in capsys.readouterr().err and not out.exists()


@pytest.mark.slow
def test_averages_are_kept_with_each_network_and_read_when_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    monkeypatch.setattr(checks, "require_determined", lambda *_: None)  # it traces three times
    out, given = tmp_path / "out", arguments(tmp_path / "out", "--item", "figure11")
    assert start(*given) == 0, capsys.readouterr().err
    record = json.loads((out / "summary.json").read_text())["figure11"]
    with (out / "figure11/samples/seed 1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == items.SAMPLES and record["answer"] in capsys.readouterr().out
    assert set(record["contrasts"]) == {"10 samples", "50 samples", "100 samples"}
    monkeypatch.setattr(engine, "_train_block", lambda *_: pytest.fail("trained again"))
    assert start(*given) == 0
    assert json.loads((out / "summary.json").read_text())["figure11"]["answer"] == record["answer"]


@pytest.mark.slow
def test_every_item_leaves_what_an_experiment_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    out = tmp_path / "out"
    assert start(*arguments(out)) == 0, capsys.readouterr().err
    record = json.loads((out / "summary.json").read_text())
    assert list(record) == [name for name in items.ITEMS if name != "choice"]
    for name, of_item in record.items():
        assert of_item["rehearsal"] and "rehearsal" in of_item["answer"] and list((out / name).glob("*.png"))
        for arm, error in items.ITEMS[name].published.items():
            assert of_item[arm]["published"] == error and of_item[arm]["n"] == 2
    assert (out / "figure10/100 images/results.csv").exists() and (out / "table10/plan.json").exists()
