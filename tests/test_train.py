"""Steps, epochs and runs: what is counted, what is traced, and what they equal."""

from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.batches import Batch, sequential_plan, shuffled_plan, take
from cnnjax.config import HParams
from cnnjax.dropout import DROPOUT
from cnnjax.kernels.parts import biases, scaled_together
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums, means, total
from cnnjax.models import MODELS, ConvNet
from cnnjax.optimizers import keras_adam
from cnnjax.state import TrainState
from cnnjax.task import Task, init_state, to_unit_interval
from cnnjax.train import (
    Arrays,
    epoch_plan,
    evaluate,
    make_eval_step,
    make_train_step,
    train_epoch,
    train_run,
)

MODEL = ConvNet(features=(3,), hidden=(8,))
TASK = Task(MODEL, keras_adam)
HPARAMS = HParams(jnp.float32(1e-3), jnp.float32(0.5))


def arrays(n: int, size: int = 8) -> Arrays:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8)
    return Arrays(jnp.asarray(images), jnp.asarray(rng.integers(0, 10, n), jnp.int32))


def start(data: Arrays, seed: int = 0) -> TrainState:
    return _start(jax.random.key(seed), data.images.shape[1:])


@partial(jax.jit, static_argnums=1)
def _start(key: jax.Array, image_shape: tuple[int, ...]) -> TrainState:
    return init_state(TASK, streams(key), image_shape, HPARAMS)


@jax.jit
def step_once(state: TrainState, batch: Batch, hparams: HParams) -> tuple[TrainState, MetricSums]:
    return make_train_step(TASK)(state, batch, hparams)


@jax.jit
def logits_of(params: Any, data: Arrays) -> jax.Array:
    logits = MODEL.apply({"params": params}, data.images.astype(jnp.float32) / 255)
    assert isinstance(logits, jax.Array)
    return logits


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (1, 5), (8, 4), (9, 4), (60, 7)])
def test_a_plan_holds_every_example_once(n: int, batch: int) -> None:
    """Few sizes, because each is compiled."""
    for plan in (shuffled_plan(jax.random.key(3), n, batch), sequential_plan(n, batch)):
        chex.assert_shape(plan, (-(-n // batch), batch))
        flat = np.asarray(plan).ravel()
        assert sorted(flat[:n]) == list(range(n))
        assert set(-1 - flat[n:]) <= set(flat[:n]) and np.all(flat[n:] < 0), "padding is at the end alone"


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    plans = [
        tuple(np.asarray(epoch_plan(jax.random.key(seed), epoch, 50, 50))[0])
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(plans)) == 9


def test_pixels_become_fractions() -> None:
    data = Arrays(jnp.array([0, 51, 255], jnp.uint8).reshape(3, 1, 1, 1), jnp.arange(3))
    batch = take(*data, jnp.array([2, 1, -1], jnp.int32))
    chex.assert_trees_all_close(to_unit_interval(batch.images[:2]).ravel(), jnp.array([1.0, 0.2]))
    chex.assert_trees_all_equal(batch.weight, jnp.array([1.0, 1.0, 0.0]))


def test_the_remainder_is_a_smaller_batch() -> None:
    """A padded batch of 3 in 6 places takes the very step that a batch of 3 takes."""
    data = arrays(6)  # of which a batch takes the first three
    padded, sums = step_once(start(data), take(*data, jnp.array([0, 1, 2, -1, -2, -3])), HPARAMS)
    small, small_sums = step_once(start(data), take(*data, jnp.arange(3)), HPARAMS)
    chex.assert_trees_all_close(sums, small_sums, rtol=1e-6)
    chex.assert_trees_all_close(padded.params, small.params, rtol=1e-5, atol=1e-6)


def test_a_step_is_optax_on_the_mean_loss() -> None:
    """By plain descent: a first step of Adam hides the gradient's scale, and magnifies the rounding of its
    small entries."""

    def descent(hparams: HParams) -> optax.GradientTransformation:
        return optax.sgd(hparams.learning_rate)

    data, hparams = arrays(6), HParams(jnp.float32(1.0), jnp.float32(0.0))
    batch, params = take(*data, sequential_plan(6, 6)[0]), start(data).params
    state = start(data)._replace(opt_state=descent(hparams).init(params))
    after, _ = jax.jit(make_train_step(Task(MODEL, descent)))(state, batch, hparams)

    @jax.jit
    def loss(params: Any) -> jax.Array:
        logits = MODEL.apply({"params": params}, to_unit_interval(batch.images))
        assert isinstance(logits, jax.Array)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))

    optimizer = descent(hparams)
    updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params))
    chex.assert_trees_all_close(after.params, optax.apply_updates(params, updates), rtol=1e-5, atol=1e-6)
    assert int(after.step) == 1


@pytest.mark.parametrize("n", [1, 40])
def test_evaluation_counts_every_example_once(n: int) -> None:
    data = arrays(n)
    state = start(data)
    sums, logits = jax.jit(partial(evaluate, make_eval_step(TASK)))(state, data, HPARAMS)
    everything = logits_of(state.params, data)
    chex.assert_trees_all_close(logits, everything, rtol=1e-5, atol=1e-6)
    loss = jax.jit(optax.softmax_cross_entropy_with_integer_labels)(everything, data.labels)
    metrics = means(sums)
    assert float(sums.examples) == n
    np.testing.assert_allclose(metrics["loss"], np.mean(loss), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["accuracy"], np.mean(np.argmax(everything, 1) == np.asarray(data.labels)), rtol=1e-6
    )


def test_evaluation_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = arrays(23)
    state = start(data)
    whole = jax.jit(partial(evaluate, make_eval_step(TASK)))(state, data, HPARAMS)
    monkeypatch.setattr("cnnjax.train.EVAL_BATCH", 5)
    parts = jax.jit(partial(evaluate, make_eval_step(TASK)))(state, data, HPARAMS)
    chex.assert_trees_all_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_devices_share_an_evaluation_without_padding() -> None:
    """Each gets an eighth of a batch, which is the whole data set here."""
    data, rows = arrays(24), set[int]()

    def counted(*given: Any) -> Any:
        rows.add(given[1].labels.shape[0])
        return make_eval_step(TASK)(*given)

    state = start(data)
    along = partial(evaluate, counted, axis_name="devices")
    mapped = jax.vmap(along, in_axes=None, axis_name="devices", axis_size=8)
    sums, _ = jax.jit(mapped)(state, data, HPARAMS)
    assert rows == {3} and float(sums.examples[0]) == 24


def test_padding_repeats_examples_that_do_not_count() -> None:
    data = arrays(5)
    batch = take(data.images, data.labels, jnp.array([4, -1, -3]))
    chex.assert_trees_all_equal(batch.images, data.images[np.array([4, 0, 2])])
    assert batch.labels.tolist() == data.labels[np.array([4, 0, 2])].tolist()
    assert batch.weight.tolist() == [1, 0, 0]


def test_a_total_keeps_all_axes_but_the_first() -> None:
    sums = total(MetricSums(*jnp.arange(18.0).reshape(3, 3, 2)))
    np.testing.assert_array_equal(sums.correct, [6 + 8 + 10, 7 + 9 + 11])


def test_everything_is_traced_once() -> None:
    """Epochs, rates, learning rates and seeds are data: none of them compiles anything again."""
    data = arrays(20)
    step, eval_step = make_train_step(TASK), make_eval_step(TASK)
    once = partial(chex.assert_max_traces, n=1)
    epoch = jax.jit(once(lambda *given: train_epoch(step, *given)))
    evaluation = jax.jit(once(lambda *given: evaluate(eval_step, *given)))
    plan = jax.jit(once(lambda key, number: epoch_plan(key, number, 20, 8)))
    for seed, rate in ((0, 0.0), (1, 0.5), (2, 1.0)):
        state, shuffle = start(data, seed), jax.random.key(seed)
        hparams = HParams(jnp.float32(1e-3 * (seed + 1)), jnp.float32(rate))
        for number in range(2):
            state, _ = epoch(state, data, plan(shuffle, jnp.int32(number)), hparams)
        evaluation(state, data, hparams)


def test_an_epoch_in_parts_is_the_epoch() -> None:
    data = arrays(24)
    epoch = jax.jit(partial(train_epoch, make_train_step(TASK)))
    plan = epoch_plan(jax.random.key(0), jnp.int32(0), 24, 4)
    whole, sums = epoch(start(data), data, plan, HPARAMS)
    state, parts = start(data), []
    for part in jnp.split(plan, 3):
        state, part_sums = epoch(state, data, part, HPARAMS)
        parts.append(part_sums)
    chex.assert_trees_all_equal(state.params, whole.params)
    together = total(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts))
    chex.assert_trees_all_close(together, sums, rtol=1e-6)


def test_a_run_is_its_epochs_and_a_function_of_its_key() -> None:
    """With classic dropout, whose rate counts at evaluation, too."""
    data, val = arrays(20), arrays(7)
    task = Task(MODEL.clone(dropout="classic"), keras_adam)
    run = jax.jit(partial(train_run, task, epochs=2, batch_size=8))
    state, sums, val_sums = run(jax.random.key(5), HPARAMS, data, val)
    again, _, _ = run(jax.random.key(5), HPARAMS, data, val)
    chex.assert_trees_all_equal(state.params, again.params)
    chex.assert_shape(sums.loss, (2,))
    measured, _ = jax.jit(partial(evaluate, make_eval_step(task)))(state, val, HPARAMS)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[-1], val_sums), measured, rtol=1e-5)
    by_hand = start(data, 5)
    epoch = jax.jit(partial(train_epoch, make_train_step(task)))
    for number in range(2):
        plan = epoch_plan(streams(jax.random.key(5)).shuffle, jnp.int32(number), 20, 8)
        by_hand, _ = epoch(by_hand, data, plan, HPARAMS)
    chex.assert_trees_all_close(state.params, by_hand.params, rtol=1e-5, atol=1e-6)


def test_training_learns() -> None:
    """Two shapes of image, told apart after some steps."""
    images = np.zeros((64, 8, 8, 1), np.uint8)
    images[:32, :4] = 255
    images[32:, :, :4] = 255
    data = Arrays(jnp.asarray(images), jnp.repeat(jnp.arange(2), 32))
    run = jax.jit(partial(train_run, TASK, epochs=6, batch_size=8))
    hparams = HParams(jnp.float32(1e-2), jnp.float32(0.2))
    _, sums, val = run(jax.random.key(0), hparams, data, data)
    assert float(means(val)["accuracy"][-1]) == 1.0
    assert float(sums.loss[-1]) < float(sums.loss[0]) / 4


@pytest.mark.parametrize(("name", "parameters"), [("keras-cnn", 197_210), ("lenet-swish", 9_532)])
def test_the_tutorials_networks(name: str, parameters: int) -> None:
    images = jnp.zeros((2, 28, 28, 1))
    variables = jax.eval_shape(MODELS[name].init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    logits = jax.eval_shape(MODELS[name].apply, variables, images)
    chex.assert_shape(logits, (2, 10))


class PlainFlax(nn.Module):
    """The first tutorial's network as a Flax user would write it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(10, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(100)(x))
        return nn.Dense(10)(x)


@pytest.mark.parametrize("reference", [False, True])
def test_the_network_is_plain_flax(reference: bool) -> None:
    """The same parameter tree, logits and gradients as nn.Conv, nn.max_pool and nn.Dense."""
    images = jax.random.uniform(jax.random.key(1), (4, 28, 28, 1))
    params = jax.jit(PlainFlax().init)(jax.random.key(0), images)["params"]

    def loss(model: nn.Module, params: Any) -> jax.Array:
        logits = model.apply({"params": params}, images)
        assert isinstance(logits, jax.Array)
        return jnp.mean(logits**2)

    ours = jax.jit(jax.value_and_grad(partial(loss, ConvNet(reference=reference))))(params)
    plain = jax.jit(jax.value_and_grad(partial(loss, PlainFlax())))(params)
    chex.assert_trees_all_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_initial_weights_are_glorot_uniform() -> None:
    """|w| <= sqrt(6 / (fan_in + fan_out)) and nearly reached; biases are zero."""
    init = jax.jit(MODELS["keras-cnn"].init)
    params = init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    for name, fans in (("Conv_0", 9 + 90), ("Dense_0", 1960 + 100), ("Dense_1", 110)):
        largest = float(jnp.max(jnp.abs(params[name]["kernel"])))
        limit = np.sqrt(6 / fans)
        assert 0.9 * limit < largest <= limit * (1 + 1e-6)
        assert not np.any(params[name]["bias"])


@pytest.mark.parametrize("kind", DROPOUT)
def test_every_kind_of_dropout_trains_as_it_is_defined(kind: str) -> None:
    """At a rate of 1, where nothing passes, the last bias alone is trained."""
    data = arrays(8)
    batch, before = take(*data, sequential_plan(8, 8)[0]), start(data)

    @partial(jax.jit, static_argnums=0)
    def first_step(dropout: Any, hparams: HParams) -> tuple[TrainState, MetricSums]:
        task = Task(MODEL.clone(dropout=dropout, dropout_sites="blocks"), keras_adam)
        return make_train_step(task)(before, batch, hparams)

    def definition(*arguments: Any, **options: Any) -> jax.Array:
        return DROPOUT[kind](*arguments, **options)

    ours, theirs = (first_step(dropout, HPARAMS) for dropout in (kind, definition))
    chex.assert_trees_all_close(ours[1], theirs[1], rtol=1e-5)
    chex.assert_trees_all_close(ours[0].params, theirs[0].params, atol=1e-6)
    after, sums = first_step(kind, HPARAMS._replace(dropout_rate=jnp.float32(1)))
    assert float(sums.loss) == pytest.approx(8 * np.log(10))
    moved = after.params["Dense_1"].pop("bias") - before.params["Dense_1"].pop("bias")
    np.testing.assert_allclose(jnp.abs(moved), 1e-3, rtol=1e-3)
    chex.assert_trees_all_equal(after.params, before.params)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_stays_where_it_is(value: float) -> None:
    gradient = {"kernel": jnp.ones((2, 3)), "bias": jnp.array([1.0, 2.0]).at[0].set(value)}
    scaled = jax.jit(scaled_together)(gradient, jnp.float32(0.5))
    expected = jax.tree.map(lambda leaf: 0.5 * leaf, gradient)
    chex.assert_trees_all_equal(scaled, expected)


def test_a_gradient_waits_for_its_biases() -> None:
    tree = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "scale": jnp.float32(2)}
    chex.assert_trees_all_equal(biases(tree), [jnp.zeros(3), jnp.float32(2)])
    assert len(biases({"kernel": jnp.ones((2, 3)), "other": jnp.ones((1, 1))})) == 2


def test_flax_users_pass_rngs() -> None:
    images = jnp.ones((2, 8, 8, 1))
    params = jax.jit(MODEL.init)(jax.random.key(0), images)
    apply = jax.jit(partial(MODEL.apply, train=True, dropout_rate=0.5))
    one, same, other = (apply(params, images, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 1, 2))
    chex.assert_trees_all_equal(one, same)
    assert len({float(logits[0, 0]) for logits in (one, other, jax.jit(MODEL.apply)(params, images))}) == 3


def test_an_all_padding_place_has_no_influence() -> None:
    data = arrays(6)
    row = jnp.array([0, 1, 2, -1, -3, -2], jnp.int32)
    batch = take(*data, row)
    noisy = Batch(batch.images.at[3:].set(9), batch.labels, batch.weight)
    clean, dirty = (step_once(start(data), b, HPARAMS)[0].params for b in (batch, noisy))
    chex.assert_trees_all_equal(clean, dirty)


def test_classic_dropout_is_scaled_down_at_evaluation() -> None:
    """Below a linear readout without bias, logits are (1 - rate) times those of unscaled features."""
    data = arrays(9)
    model = ConvNet(features=(3,), hidden=(), dropout="classic")
    task = Task(model, keras_adam)
    init = jax.jit(lambda: init_state(task, streams(jax.random.key(0)), data.images.shape[1:], HPARAMS))
    state = init()
    evaluation = jax.jit(partial(evaluate, make_eval_step(task)))
    full, scaled = (
        evaluation(state, data, HPARAMS._replace(dropout_rate=jnp.float32(rate)))[1] for rate in (0.0, 0.75)
    )
    chex.assert_trees_all_close(scaled, 0.25 * full, rtol=1e-4, atol=1e-6)
