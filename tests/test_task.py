"""Any module trains: with statistics, with Flax's dropout, with the user's hyperparameters and losses."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from cnnjax.batches import take
from cnnjax.config import HParams
from cnnjax.errors import ArgumentError
from cnnjax.keys import Masks, streams
from cnnjax.optimizers import keras_adam
from cnnjax.population import make_population, stack
from cnnjax.state import TrainState
from cnnjax.task import (
    Augment,
    Task,
    forward,
    init_state,
    predict,
    reads_rate,
    require_fit,
    to_unit_interval,
)
from cnnjax.train import Arrays, make_train_step, make_training, train_run

SHAPE = (12, 10, 3)
HPARAMS = HParams(jnp.float32(1e-2), jnp.float32(0.3))


def arrays(n: int, seed: int = 0) -> Arrays:
    """Images whose class shows in their brightness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, n)
    images = np.clip(rng.normal(30 * labels, 20, (*SHAPE, n)), 0, 255).astype(np.uint8)
    return Arrays(jnp.asarray(np.moveaxis(images, -1, 0)), jnp.asarray(labels, jnp.int32))


TRAIN, VAL = arrays(40), arrays(14, seed=1)


class Plain(nn.Module):
    """Takes images and nothing else."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(7)(nn.relu(nn.Dense(16)(x.reshape(len(x), -1))))


class FlaxDropout(nn.Module):
    """Flax's own dropout, and its convention."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x)).reshape(len(x), -1)
        return nn.Dense(7)(nn.Dropout(0.5, deterministic=not train)(x))


class ResNet(nn.Module):
    """One residual block, normalised by batch or by group."""

    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def normalise(x: jax.Array) -> jax.Array:
            if self.norm == "group":
                return nn.GroupNorm(num_groups=2)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(normalise(nn.Conv(4, (3, 3))(x)))
        x = x + nn.relu(normalise(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(7)(x.mean((1, 2)))


class NnxNetwork(nnx.Module):
    """A module of Flax's newer interface."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dense = nnx.Linear(4, 7, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x), use_running_average=not train))
        return self.dense(x.mean((1, 2)))


MODELS: dict[str, nn.Module] = {
    "plain": Plain(),
    "dropout": FlaxDropout(),
    "BatchNorm": ResNet("batch"),
    "GroupNorm": ResNet("group"),
    "NNX": nnx.bridge.to_linen(NnxNetwork),
}
BATCH_NORM = Task(MODELS["BatchNorm"], lambda hparams: optax.sgd(hparams.learning_rate))


@pytest.mark.parametrize("name", MODELS)
def test_any_module_learns(name: str) -> None:
    run = jax.jit(partial(train_run, Task(MODELS[name], keras_adam), epochs=6, batch_size=8))
    state, train, val = run(jax.random.key(0), HPARAMS, TRAIN, VAL)
    chex.assert_tree_all_finite((state.params, train, val))
    assert float(train.loss[-1]) < 0.9 * float(train.loss[0])
    assert bool(jax.tree.leaves(state.collections)) == (name in ("BatchNorm", "NNX"))


@pytest.mark.parametrize(
    "name", ["BatchNorm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dropout", "NNX"))]
)
def test_a_member_of_a_population_is_its_solo_run(name: str) -> None:
    task, seeds = Task(MODELS[name], keras_adam), np.arange(8, dtype=np.uint32)
    program = make_population(task, TRAIN, VAL, batch_size=8, chunk=1)
    population, _ = program.epoch(program.start(seeds, stack([HParams(1e-2, 0.3)] * 8)), 0)
    run, keys = make_training(task, SHAPE, 40, 8), streams(jax.random.key(5))
    state = jax.jit(run.init)(keys, HPARAMS)
    state, _ = jax.jit(run.epoch)(state, TRAIN, run.plan(keys.shuffle, 0), HPARAMS)
    ours = jax.tree.map(
        lambda leaf: np.asarray(leaf)[5], (population.state.params, population.state.collections)
    )
    chex.assert_trees_all_equal(ours, jax.device_get((state.params, state.collections)))


@partial(jax.jit, static_argnums=(0, 2))
def started(task: Task, hparams: Any, seed: int = 0) -> TrainState:
    return init_state(task, streams(jax.random.key(seed)), SHAPE, hparams)


def first_step(
    task: Task, data: Arrays, plan: jax.Array, axis_name: str | None = None
) -> tuple[TrainState, Any]:
    state = init_state(task, streams(jax.random.key(1)), SHAPE, HPARAMS)
    return make_train_step(task, axis_name)(state, take(*data, plan), HPARAMS)


def test_statistics_are_those_of_the_batch_and_are_used_in_evaluation() -> None:
    state = jax.jit(partial(first_step, BATCH_NORM))(TRAIN, jnp.arange(8))[0]
    initial = started(BATCH_NORM, HPARAMS, 1)
    conv = jax.jit(nn.Conv(4, (3, 3)).apply)(
        {"params": initial.params["Conv_0"]}, to_unit_interval(TRAIN.images[:8])
    )
    assert isinstance(conv, jax.Array)
    statistics = state.collections["batch_stats"]["BatchNorm_0"]
    chex.assert_trees_all_close(statistics["mean"], 0.1 * conv.mean((0, 1, 2)), rtol=1e-4)
    chex.assert_trees_all_close(statistics["var"], 0.9 + 0.1 * conv.var((0, 1, 2)), rtol=1e-4)
    without = state._replace(collections=initial.collections)
    logits = [jax.jit(partial(predict, BATCH_NORM))(s, VAL.images, HPARAMS) for s in (state, without)]
    assert float(jnp.abs(logits[0] - logits[1]).max()) > 1e-3


@pytest.mark.devices
def test_batch_norm_over_two_devices_is_batch_norm_of_the_whole_batch() -> None:
    whole, _ = jax.jit(partial(first_step, BATCH_NORM))(TRAIN, jnp.arange(8))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    divided = jax.shard_map(
        partial(first_step, BATCH_NORM, axis_name="data"),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        check_vma=False,
    )
    two, _ = jax.jit(divided)(TRAIN, jnp.arange(8))
    chex.assert_trees_all_close(two.collections, whole.collections, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(two.params, whole.params, rtol=1e-3, atol=1e-4)


class OnlyMasks(nn.Module):
    """Its logits are the masks of Flax's dropout."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dropout(0.5, deterministic=not train)(jnp.ones((len(x), 64)))


@pytest.mark.parametrize("name", ["step", "first_example"])
def test_no_two_steps_parts_or_devices_share_a_foreign_mask(name: str) -> None:
    """64 fair bits: a collision of 8 masks by chance has probability below 2^-58."""
    task, stream = Task(OnlyMasks(), keras_adam), streams(jax.random.key(0)).dropout
    masks = [
        forward(task, {}, {}, TRAIN.images[:1], HPARAMS, Masks(stream, **{name: number}))[0]
        for number in range(8)
    ]
    assert len({np.asarray(mask).tobytes() for mask in masks}) == 8


class Flag(nn.Module):
    """Its logits say whether it is evaluated."""

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        return jnp.full((len(x), 7), float(deterministic))


def test_a_network_may_ask_for_deterministic() -> None:
    task, keys = Task(Flag(), keras_adam), streams(jax.random.key(0))
    state = init_state(task, keys, SHAPE, HPARAMS)
    assert float(predict(task, state, TRAIN.images[:1], HPARAMS)[0, 0]) == 1
    assert float(forward(task, {}, {}, TRAIN.images[:1], HPARAMS, Masks(keys.dropout))[0][0, 0]) == 0


@pytest.mark.parametrize("classes", [6, 8])
def test_a_network_needs_a_logit_for_each_class_and_no_other(classes: int) -> None:
    task = Task(Plain(), keras_adam)
    require_fit(task, SHAPE, 7, HPARAMS, "mine")
    with pytest.raises(ArgumentError, match=rf"^mine: of 2 images .* float32\[2, 7\].*\[2, {classes}\]"):
        require_fit(task, SHAPE, classes, HPARAMS, "mine")


class Own(NamedTuple):
    """Hyperparameters of the user's own."""

    learning_rate: Any = 0.1
    weight_decay: Any = 0.0
    sharpness: Any = 1.0


class Sharp(nn.Module):
    """Reads a hyperparameter by name, and all of them together."""

    @nn.compact
    def __call__(self, x: jax.Array, sharpness: jax.Array, hparams: Own) -> jax.Array:
        return nn.Dense(7)(x.reshape(len(x), -1)) * sharpness * (hparams.sharpness / sharpness)


def decayed(hparams: Own) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(hparams.weight_decay), optax.sgd(hparams.learning_rate))


def test_own_hyperparameters_are_traced_and_reach_module_and_optimizer() -> None:
    task, traces = Task(Sharp(), decayed), chex.assert_max_traces(train_run, n=1)
    run = jax.jit(partial(traces, task, train=TRAIN, val=VAL, epochs=1, batch_size=8))
    runs = [
        run(jax.random.key(0), jax.tree.map(jnp.float32, hparams))
        for hparams in (Own(), Own(weight_decay=0.1), Own(sharpness=3.0), Own(learning_rate=0.0))
    ]
    losses = [float(val.loss[0]) for _, _, val in runs]
    assert len(set(losses)) == 4
    initial = started(task, Own())
    chex.assert_trees_all_close(runs[3][0].params, initial.params)


def test_weight_decay_of_the_users_own_shrinks_the_weights() -> None:
    """At zero gradient a step multiplies them by 1 - learning_rate * weight_decay."""
    task = Task(Plain(), decayed, loss=lambda logits, labels: 0.0 * logits[:, 0])
    state = started(task, Own())
    hparams = Own(jnp.float32(0.5), jnp.float32(0.2))
    after, _ = jax.jit(make_train_step(task))(state, take(*TRAIN, jnp.arange(8)), hparams)
    chex.assert_trees_all_close(after.params, jax.tree.map(lambda leaf: 0.9 * leaf, state.params), rtol=1e-6)


def max_norm(limit: float) -> optax.GradientTransformation:
    """Project every unit's incoming weights to a norm of at most `limit` (Srivastava et al. 2014)."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def projected(param: jax.Array, change: jax.Array) -> jax.Array:
            new = param + change
            if new.ndim < 2:
                return change
            norm = jnp.linalg.norm(new, axis=0, keepdims=True)
            return new * jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-9)) - param

        return jax.tree.map(projected, params, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def test_momentum_with_a_max_norm_projection_keeps_every_unit_within_the_limit() -> None:
    def optimizer(hparams: HParams) -> optax.GradientTransformation:
        descent = optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(hparams.learning_rate))
        return optax.chain(descent, max_norm(0.5))

    run = partial(train_run, Task(Plain(), optimizer), epochs=2, batch_size=8)
    state, training, _ = jax.jit(run)(jax.random.key(0), HParams(0.1), TRAIN, VAL)
    norms = [np.linalg.norm(state.params[name]["kernel"], axis=0) for name in ("Dense_0", "Dense_1")]
    assert max(map(np.max, norms)) == pytest.approx(0.5, rel=1e-5), "some unit is at the limit, none beyond"
    assert np.isfinite(training.loss).all()


def test_own_loss_and_preprocess() -> None:
    """Label smoothing and standardised pixels give the step that optax takes on them."""

    def smoothed(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(labels, 7), 0.1))

    def standardised(images: jax.Array) -> jax.Array:
        return (images.astype(jnp.float32) - 90) / 60

    task = Task(Plain(), decayed, smoothed, standardised)
    hparams, batch = Own(jnp.float32(0.5)), take(*TRAIN, jnp.arange(8))
    state = started(task, hparams)
    after, _ = jax.jit(make_train_step(task))(state, batch, hparams)

    def loss(params: Any) -> jax.Array:
        logits = Plain().apply({"params": params}, standardised(batch.images))
        assert isinstance(logits, jax.Array)
        return smoothed(logits, batch.labels).mean()

    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, jax.jit(jax.grad(loss))(state.params))
    chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-6)


def roll(key: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.roll(image, jax.random.randint(key, (2,), 0, 10), (0, 1))


class Pixels(nn.Module):
    """Its logits are some pixels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x[:, 0, :7, 0]


def logits_of(augment: Augment | None, start: int, count: int, step: int = 3) -> np.ndarray:
    task, stream = Task(Pixels(), keras_adam, augment=augment), streams(jax.random.key(0)).dropout
    masks = Masks(stream, step, start)
    images = TRAIN.images[start : start + count]
    return np.asarray(forward(task, {}, {}, images, HPARAMS, masks)[0])


def test_augmentation_belongs_to_the_example_whatever_the_parts() -> None:
    whole = logits_of(roll, 0, 8)
    np.testing.assert_array_equal(whole, np.concatenate([logits_of(roll, 0, 5), logits_of(roll, 5, 3)]))
    assert not np.array_equal(whole, logits_of(None, 0, 8))
    assert not np.array_equal(whole, logits_of(roll, 0, 8, step=4))


def test_augmentation_leaves_evaluation_alone() -> None:
    task = Task(Pixels(), keras_adam, augment=roll)
    state = started(task, HPARAMS)
    logits = predict(task, state, TRAIN.images, HPARAMS)
    np.testing.assert_array_equal(logits, to_unit_interval(TRAIN.images)[:, 0, :7, 0])


# Whether a dropout rate does anything


class Rated(nn.Module):
    """Makes with the rate what `use` says."""

    use: Callable[[Any, bool], Any]

    @nn.compact
    def __call__(self, x: jax.Array, hparams: HParams, train: bool) -> jax.Array:
        return nn.Dense(7)(x.reshape(len(x), -1)) * self.use(hparams, train)


class Scaled(nn.Module):
    """Uses the rate in training alone, beside statistics."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, dropout_rate: jax.Array) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train)(x).reshape(len(x), -1)
        return nn.Dense(7)(x * (1 - dropout_rate) if train else x)


@pytest.mark.parametrize(
    ("model", "reads"),
    [
        (Scaled(), True),
        (Rated(lambda hparams, train: hparams.dropout_rate if train else 1.0), True),
        (Rated(lambda hparams, train: hparams.learning_rate), False),
        (Rated(lambda hparams, train: 1.0 if train else hparams.dropout_rate), True),
        (Rated(lambda hparams, train: hparams.of_the_user), True),  # cannot be traced with our own
        (Plain(), False),
        (FlaxDropout(), False),
    ],
)
def test_a_rate_is_read_if_logits_depend_on_it(model: nn.Module, reads: bool) -> None:
    assert reads_rate(model) is reads
