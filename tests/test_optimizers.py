"""Optimizers, schedules, and streams with a seed of their own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import TINY, assert_same_run, change_rows, fails, main, saved_tree, succeeds, train
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.config import READ_BY, HParams
from cnnjax.data import load, training_split
from cnnjax.errors import ArgumentError
from cnnjax.files.records import LATER
from cnnjax.keys import StreamSeeds, run_streams, streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from cnnjax.population import Population, make_population, stack
from cnnjax.runs import programs, resumption
from cnnjax.runs.train_config import TrainConfig
from cnnjax.task import Task
from cnnjax.train import Arrays, make_training

HPARAMS = HParams(jnp.float32(0.1), jnp.float32(0.0), jnp.float32(0.01), jnp.float32(0.9))
PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.25, -0.75])}
STEPS = 20


def walk(optimizer: optax.GradientTransformation, steps: int, gradient: float = 1.0) -> list[Any]:
    """The parameters after each step, with gradients that depend on them."""
    params, state, visited = PARAMS, optimizer.init(PARAMS), []
    for _ in range(steps):
        updates, state = optimizer.update(jax.tree.map(lambda p: gradient * (p - 1), params), state, params)
        params: Any = optax.apply_updates(params, updates)
        visited.append(params)
    return visited


def test_sgd_is_that_of_optax() -> None:
    ours = OPTIMIZERS["sgd"](HPARAMS._replace(weight_decay=jnp.float32(0.0)))
    chex.assert_trees_all_close(walk(ours, 3), walk(optax.sgd(0.1, momentum=0.9), 3), rtol=1e-6)


@pytest.mark.parametrize("name", READ_BY["weight_decay"])
def test_weight_decay_shrinks_parameters_without_a_gradient(name: str) -> None:
    (params,) = walk(OPTIMIZERS[name](HPARAMS), 1, gradient=0.0)
    chex.assert_trees_all_close(params, jax.tree.map(lambda p: (1 - 0.1 * 0.01) * p, PARAMS), rtol=1e-6)


def test_adamw_without_weight_decay_is_adam() -> None:
    hparams = HPARAMS._replace(weight_decay=jnp.float32(0.0))
    chex.assert_trees_all_equal(walk(OPTIMIZERS["adamw"](hparams), 3), walk(OPTIMIZERS["adam"](hparams), 3))


def factors(schedule: optax.Schedule, total_steps: int) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(total_steps + 1)))


@pytest.mark.parametrize("total_steps", [1, 10, 37])
def test_cosine_ends_at_0_and_one_cycle_peaks_once(total_steps: int) -> None:
    cosine, cycle = (factors(SCHEDULES[name](total_steps), total_steps) for name in ("cosine", "one-cycle"))
    assert cosine[0] == 1 and abs(cosine[-1]) < 1e-6 and np.all(np.diff(cosine) < 0)
    peak = int(np.argmax(cycle))
    assert peak == int(0.3 * total_steps) and cycle[peak] == pytest.approx(1)
    assert np.all(np.diff(cycle[: peak + 1]) > 0) and np.all(np.diff(cycle[peak:]) < 0)
    with jax.numpy_dtype_promotion("standard"):
        expected = factors(optax.cosine_onecycle_schedule(total_steps, 1.0), total_steps)
    np.testing.assert_allclose(cycle, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_scales_the_learning_rate(name: str) -> None:
    """The first step of one-cycle is that with a 25th of the learning rate; a constant one adds nothing."""
    (scheduled,) = walk(make_optimizer(name, "one-cycle", STEPS)(HPARAMS), 1)
    (scaled,) = walk(OPTIMIZERS[name](HPARAMS._replace(learning_rate=jnp.float32(0.1 / 25))), 1)
    chex.assert_trees_all_close(scheduled, scaled, rtol=1e-5)
    assert make_optimizer(name, "constant", STEPS) is OPTIMIZERS[name]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"momentum": 0.9}, "--momentum 0.9 does nothing with --optimizer adam; .* --optimizer sgd"),
        ({"momentum": 0.9, "optimizer": "adamw"}, "--momentum"),
        ({"weight_decay": 0.1}, "--weight-decay 0.1 .* --optimizer adamw or sgd"),
        ({"weight_decay": 0.1, "optimizer": "rmsprop"}, "--weight-decay"),
        ({"weight_decay": -0.1, "optimizer": "adamw"}, "--weight-decay"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "--momentum"),
        ({"schedule": "linear"}, "--schedule linear is unknown; use one of constant, cosine, one-cycle"),
        ({"mask_seed": 2**32}, "--mask-seed"),
    ],
)
def test_settings_that_no_run_can_have(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        TrainConfig(**settings)


def test_a_caption_names_what_is_not_the_default() -> None:
    assert TrainConfig().optimization == "adam 0.001"
    config = TrainConfig(optimizer="sgd", schedule="cosine", momentum=0.9, mask_seed=0)
    assert config.optimization == "sgd 0.001, cosine schedule, momentum 0.9, mask seed 0"


# Populations

SEEDS = np.arange(8, dtype=np.uint32) // 2


def arrays(n: int) -> Arrays:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Arrays(jnp.asarray(images), jnp.asarray(rng.integers(0, 10, n), jnp.int32))


TRAIN, VAL = arrays(40), arrays(12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", pytest.param("sgd", marks=pytest.mark.slow)])
def test_a_member_with_its_own_weight_decay_is_its_solo_run(name: str) -> None:
    """One compiled program, eight weight decays (and momenta), in the middle of a schedule."""
    task = Task(ConvNet(features=(3,), hidden=(8,)), make_optimizer(name, "cosine", 10))
    of_members = [HParams(1e-2, 0.5, 0.1 * i, 0.1 * i) for i in range(8)]
    program = make_population(task, TRAIN, VAL, batch_size=8, chunk=1)
    population, _ = program.epoch(program.start(SEEDS, stack(of_members)), 0)
    run, keys = make_training(task, (8, 8, 1), 40, 8), streams(jax.random.key(int(SEEDS[5])))
    hparams = jax.tree.map(jnp.float32, of_members[5])
    start = jax.jit(run.init)(keys, hparams)
    alone, _ = jax.jit(run.epoch)(start, TRAIN, run.plan(keys.shuffle, 0), hparams)
    member = jax.tree.map(lambda leaf: np.asarray(leaf)[5], population.state.params)
    chex.assert_trees_all_equal(member, jax.device_get(alone.params))
    with pytest.raises(AssertionError):
        other = jax.tree.map(lambda leaf: np.asarray(leaf)[4], population.state.params)
        chex.assert_trees_all_close(member, other, rtol=1e-6)


def started(own: StreamSeeds) -> dict[str, np.ndarray]:
    task = Task(ConvNet((2,), hidden=()), OPTIMIZERS["adam"])
    program = make_population(task, TRAIN, VAL, batch_size=8, own=own)
    population: Population = program.start(SEEDS, stack([HParams()] * 8))
    return {
        "init": np.asarray(population.state.params["Dense_0"]["kernel"]),
        "order": np.asarray(jax.random.key_data(population.shuffle)),
        "masks": np.asarray(jax.random.key_data(population.state.key)),
    }


def test_a_seed_of_a_stream_changes_that_stream_alone() -> None:
    plain = started(StreamSeeds())
    for stream in StreamSeeds._fields:
        own = started(StreamSeeds(**{stream: 3}))
        for name, values in own.items():
            if name == stream:
                assert np.all(values == values[0]) and np.array_equal(values[0], plain[name][6])
            else:
                np.testing.assert_array_equal(values, plain[name])


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_streams_of_a_run(seed: int, own: int) -> None:
    usual, other = streams(jax.random.key(seed)), streams(jax.random.key(own))
    assert run_streams(seed) == usual
    assert run_streams(seed, StreamSeeds(masks=own)) == usual._replace(dropout=other.dropout)


# Whole runs


def test_the_configuration_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    config = TrainConfig(dataset="fashion_mnist", optimizer="rmsprop", seed=3)
    record = resumption.config_record(config, TINY)
    (tmp_path / "config.json").write_text(
        json.dumps({name: value for name, value in record.items() if name not in LATER})
    )
    assert resumption.recorded(tmp_path, pytest.fail) == (config, TINY, None)


def test_the_mask_seed_of_a_run_changes_masks_alone() -> None:
    loaded = load("fashion_mnist", TINY, announce=lambda _: None)
    config = TrainConfig(model="lenet-swish", dataset="fashion_mnist")
    usual, other = (
        programs.build(replace(config, mask_seed=seed), *training_split(loaded)) for seed in (None, 5)
    )
    chex.assert_trees_all_equal(usual.start.params, other.start.params)
    chex.assert_trees_all_equal(usual.plan(1), other.plan(1))
    keys = [jax.random.key_data(program.start.key).tolist() for program in (usual, other)]
    assert keys[0] != keys[1]


SETTINGS = ("--model", "lenet-swish", "--optimizer", "sgd", "--learning-rate", "0.05", "--momentum", "0.9")
SETTINGS += ("--weight-decay", "0.001", "--schedule", "one-cycle", "--mask-seed", "5", "--epochs", "2")


@pytest.mark.slow
def test_a_run_resumes_in_the_middle_of_a_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    succeeds(*train(whole, *SETTINGS))

    def stop(row: dict[str, float]) -> dict[str, float]:
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        return row

    with monkeypatch.context() as patch:
        change_rows(patch, stop)
        assert main(*train(stopped, *SETTINGS)).code == 130
    again = ("train", "--resume", "--out", str(stopped))
    assert "--mask-seed 5 (not 6)" in fails(2, *again, "--mask-seed", "6")
    assert "no --init-seed (not 0)" in fails(2, *again, "--init-seed", "0")
    assert "--epochs 2 (not 3): the one-cycle schedule depends on it" in fails(2, *again, "--epochs", "3")
    succeeds(*again)
    assert_same_run(stopped, whole)
    masks = streams(jax.random.key(5)).dropout
    assert saved_tree(whole, 2)["key_data"].tolist() == jax.random.key_data(masks).tolist()
    assert json.loads((whole / "config.json").read_text())["schedule"] == "one-cycle"
    assert "accuracy" in succeeds("evaluate", str(whole))
