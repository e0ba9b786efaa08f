"""Populations: a member is the run of its own; arms of a seed are paired."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config import HParams
from cnnjax.data import Dataset, subset
from cnnjax.keys import streams
from cnnjax.models import ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.population import EpochSums, Population, default_chunk, make_population, stack
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state
from cnnjax.train import Arrays, epoch_plan, make_train_step, train_epoch, train_run

TASK = Task(ConvNet(features=(3,), hidden=(8,)), keras_adam)
SEEDS = np.array([4, 4, 7, 7, 9, 9, 11, 11], np.uint32)
RATES = [0.0, 0.5] * 4


def arrays(n: int) -> Arrays:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Arrays(jnp.asarray(images), jnp.asarray(rng.integers(0, 10, n), jnp.int32))


TRAIN, VAL = arrays(40), arrays(12)


def trained(chunk: int, epochs: int = 2) -> tuple[Population, list[EpochSums]]:
    program = make_population(TASK, TRAIN, VAL, batch_size=8, chunk=chunk)
    population = program.start(SEEDS, stack([HParams(1e-2, rate) for rate in RATES]))
    measured = []
    for number in range(epochs):
        population, sums = program.epoch(population, number)
        measured.append(sums)
    return population, measured


def solo(seed: int, rate: float, epochs: int = 2) -> TrainState:
    """The run that a user gets from `train`: a jitted epoch at a time."""
    keys, hparams = streams(jax.random.key(seed)), HParams(jnp.float32(1e-2), jnp.float32(rate))
    state = jax.jit(lambda: init_state(TASK, keys, (8, 8, 1), hparams))()
    epoch = jax.jit(partial(train_epoch, make_train_step(TASK)))
    for number in range(epochs):
        state, _ = epoch(state, TRAIN, epoch_plan(keys.shuffle, number, 40, 8), hparams)
    return state


def test_accelerators_map_a_hundred_members_at_a_time() -> None:
    assert [default_chunk(backend) for backend in ("cpu", "gpu", "tpu")] == [1, 100, 100]


@pytest.mark.parametrize(
    ("backend", "devices", "one_thread"), [("cpu", 8, True), ("cpu", 1, False), ("gpu", 8, False)]
)
def test_an_epoch_has_one_thread_where_each_core_is_a_device(
    backend: str, devices: int, one_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = []

    def compiled(function: Any, compiler_options: Any = None, **_: Any) -> Any:
        options.append(compiler_options)
        return function

    monkeypatch.setattr(jax, "jit", compiled)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    make_population(TASK, TRAIN, VAL, batch_size=8)
    assert options == [None, {"xla_cpu_multi_thread_eigen": False} if one_thread else None, None]


@pytest.fixture(scope="module")
def one_by_one() -> tuple[Population, list[EpochSums]]:
    return trained(chunk=1)


@pytest.mark.parametrize("member", [1, 6])
def test_a_member_is_its_solo_run_bit_for_bit(member: int, one_by_one: tuple) -> None:
    population, _ = one_by_one
    ours = jax.tree.map(lambda leaf: np.asarray(leaf)[member], population.state.params)
    chex.assert_trees_all_equal(ours, jax.device_get(solo(int(SEEDS[member]), RATES[member]).params))


@pytest.mark.parametrize(("chunk", "sizes"), [(None, set()), (1, set()), (2, {1, 2}), (3, {3})])
def test_a_chunk_of_the_members_of_a_device_is_vmapped(chunk: int | None, sizes: set[int]) -> None:
    """And by default none on a CPU. A chunk of two leaves one of three members over."""
    found = set()

    @jax.custom_batching.custom_vmap
    def watched(rate: jax.Array) -> jax.Array:
        return rate

    @watched.def_vmap
    def _(size: int, _: list[bool], rate: jax.Array) -> tuple[jax.Array, bool]:
        found.add(size)
        return rate, True

    task = TASK._replace(optimizer=lambda hparams: optax.sgd(watched(hparams.learning_rate)))
    program = make_population(task, TRAIN, VAL, batch_size=8, chunk=chunk)
    members = 3 * jax.device_count()
    hparams = stack([HParams(1e-2, 0.0)] * members)
    population = jax.eval_shape(program.start, jnp.arange(members, dtype=jnp.uint32), hparams)
    assert found == (sizes if jax.default_backend() == "cpu" or chunk else {3})
    assert population.state.step.shape == (members,)


def test_vmap_gives_the_same_to_rounding(one_by_one: tuple) -> None:
    """`vmap` changes the shapes of matrix products and with them the order of float32 sums: 10 steps of Adam,
    which divides by the root of the squared gradient, make of it some 1e-4 of a step of 1e-2."""
    wide = trained(chunk=4)
    mine, theirs = (jax.device_get((p.state.params, m)) for p, m in (wide, one_by_one))
    chex.assert_trees_all_close(mine[0], theirs[0], rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(mine[1], theirs[1], rtol=1e-3)


def test_arms_of_a_seed_are_paired_and_seeds_differ() -> None:
    population, _ = trained(chunk=1, epochs=0)
    kernel = np.asarray(population.state.params["Dense_0"]["kernel"])
    shuffle = np.asarray(jax.random.key_data(population.shuffle))
    masks = np.asarray(jax.random.key_data(population.state.key))
    for first in range(0, 8, 2):
        for values in (kernel, shuffle, masks):
            np.testing.assert_array_equal(values[first], values[first + 1])
            assert not np.array_equal(values[first], values[first - 1])


def test_a_diverged_member_takes_no_one_with_it(one_by_one: tuple) -> None:
    program = make_population(TASK, TRAIN, VAL, batch_size=8, chunk=1)
    hparams = stack([HParams(np.nan if i == 2 else 1e-2, rate) for i, rate in enumerate(RATES)])
    population = program.start(SEEDS, hparams)
    population, _ = program.epoch(population, 0)
    _, sums = program.epoch(population, 1)
    loss = np.asarray(sums.val.loss)
    assert np.isnan(loss[2]) and np.isfinite(np.delete(loss, 2)).all()
    np.testing.assert_array_equal(np.delete(loss, 2), np.delete(np.asarray(one_by_one[1][-1].val.loss), 2))


def test_a_whole_run_vmaps_over_keys_and_rates() -> None:
    """`train_run` is a function: seeds x rates are two nested vmaps."""
    run = partial(train_run, TASK, train=TRAIN, val=VAL, epochs=1, batch_size=8)
    keys = jnp.stack([jax.random.key(seed) for seed in (4, 7)])
    rates = jnp.array([0.0, 0.5])

    def over_rates(key: jax.Array) -> jax.Array:
        return jax.vmap(lambda rate: run(key, HParams(jnp.float32(1e-2), rate))[2].loss)(rates)

    losses = jax.jit(jax.vmap(over_rates))(keys)
    _, measured = trained(chunk=1, epochs=1)
    chex.assert_trees_all_close(losses.ravel(), jnp.asarray(np.asarray(measured[0].val.loss)[:4]), rtol=1e-4)


def test_the_training_images_measured_are_of_all_classes() -> None:
    """Of sorted data the first images are of one class, which says little about the others."""
    order = np.argsort(np.asarray(TRAIN.labels), kind="stable")
    data = Arrays(TRAIN.images[order], TRAIN.labels[order])
    program = make_population(TASK, data, VAL, batch_size=8, chunk=1)
    population, sums = program.epoch(program.start(SEEDS, stack([HParams(1e-2, r) for r in RATES])), 0)
    sample = subset(Dataset(np.asarray(data.images), np.asarray(data.labels)), 12)
    assert len(np.unique(sample.labels)) >= 6 and len(sample.labels) == 12
    expected, _ = program.evaluate(population, Arrays(*map(jnp.asarray, sample[:2])))
    chex.assert_trees_all_close(sums.train, expected, rtol=1e-5)
