"""Training as pure functions: a step, an epoch, a run. The model and the optimizer come in as arguments."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax.batches import Batch, scaled, sequential_plan, shuffled_plan, take, take_batch
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.dropout import Place, Rate
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums, example_loss, metric_sums, total
from cnnjax.state import MakeOptimizer, Params, TrainState, init_state

TrainStep = Callable[[TrainState, Batch, HParams], tuple[TrainState, MetricSums]]
EvalStep = Callable[[Params, Batch], tuple[MetricSums, jax.Array]]
EVAL_BATCH = 500
PART = 128
"""Examples that a CPU takes through a step at a time; the activations of more fall out of its caches."""


class Arrays(NamedTuple):
    """A data set in device memory."""

    images: jax.Array  # uint8[n, height, width, channels]
    labels: jax.Array  # i32[n]


def to_device(dataset: Dataset) -> Arrays:
    """Copy a data set to the device, as uint8, once."""
    return Arrays(jnp.asarray(dataset.images), jnp.asarray(dataset.labels))


def make_train_step(
    model: nn.Module, make_optimizer: MakeOptimizer, axis_name: str | None = None
) -> TrainStep:
    """One step of stochastic gradient descent on the mean loss over the batch's examples.

    Args:
        model: `apply({"params": p}, images, train, dropout_rate, dropout_key, first_example) -> logits`.
        make_optimizer: builds the optimizer from the traced hyperparameters.
        axis_name: the mapped axis that splits the batch, for `pmap` and `shard_map`; the state is the
            same on every device, and stays so.

    Returns:
        step(state, batch, hparams) -> (state, metric sums over the whole batch, before the update).
    """

    def step(state: TrainState, batch: Batch, hparams: HParams) -> tuple[TrainState, MetricSums]:
        key = jax.random.fold_in(state.key, state.step)

        def gradient_sum(params: Params, batch: Batch, first_example: Place) -> tuple[Params, MetricSums]:
            def loss_sum(params: Params) -> tuple[jax.Array, MetricSums]:
                logits: Any = model.apply(
                    {"params": params},
                    batch.images,
                    train=True,
                    dropout_rate=hparams.dropout_rate,
                    dropout_key=key,
                    first_example=first_example,
                )
                loss = example_loss(logits, batch.labels)
                return jnp.sum(loss * batch.weight), metric_sums(logits, batch.labels, loss, batch.weight)

            return jax.grad(loss_sum, has_aux=True)(params)

        params, first_example = state.params, 0
        if axis_name is not None:
            # Under shard_map, the gradient of an unvarying parameter carries a psum already; marked as
            # varying, the gradient is this device's own part everywhere, and is summed once, below.
            params = _varying(params, axis_name)
            first_example = jax.lax.axis_index(axis_name) * batch.labels.shape[0]
        size = _part_size(batch.labels.shape[0])
        in_parts = partial(_sum_over_parts, gradient_sum, size, axis_name)
        gradient, sums = (
            gradient_sum(params, batch, first_example)
            if size == batch.labels.shape[0]
            else jax.lax.platform_dependent(
                params, batch, jnp.asarray(first_example), cpu=in_parts, default=gradient_sum
            )
        )
        if axis_name is not None:
            gradient, sums = jax.lax.psum((gradient, sums), axis_name)
        gradient = _scaled_together(gradient, 1 / sums.examples)
        updates, opt_state = make_optimizer(hparams).update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.key), sums

    return step


def _varying(tree: Any, axis_name: str) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), tree)


def _part_size(examples: int) -> int:
    """The largest divisor up to `PART`, or all examples where it would make the parts much smaller."""
    size = max(size for size in range(1, PART + 1) if examples % size == 0)
    return size if size >= PART // 2 else examples


def _sum_over_parts(
    function: Callable[[Params, Batch, Place], Any],
    size: int,
    axis_name: str | None,
    params: Params,
    batch: Batch,
    first_example: jax.Array,
) -> Any:
    """`function` of the whole batch as its sum over parts, two at a time."""
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), batch)
    firsts = first_example + size * jnp.arange(batch.labels.shape[0] // size)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(params, *part)), None

    shapes = jax.eval_shape(function, params, jax.tree.map(lambda leaf: leaf[0], parts), first_example)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    zeros = zeros if axis_name is None else _varying(zeros, axis_name)
    # Two, so that one part's products that keep a single core busy run beside the other part's.
    return jax.lax.scan(add, zeros, (parts, firsts), unroll=2)[0]


def _scaled_together(gradient: Params, factor: jax.Array) -> Params:
    """The gradient times a factor that is not there before every bias's gradient is.

    Otherwise XLA's CPU scheduler updates the first parameters while the backward pass still reads them, and
    copies them for it: about 6% of a step of the first tutorial's network. `optimization_barrier` does not
    prevent that; a factor does that depends on what is computed after the last reading. That is the gradient
    of the bias below a kernel. To wait for the kernels' own would keep a core idle, as the convolution's is
    the work of one.
    """
    leaves = jax.tree.leaves(gradient)
    biases = [leaf for leaf in leaves if leaf.ndim < 2] or leaves
    factor = factor + 0 * jnp.sum(jnp.stack([leaf.ravel()[0] for leaf in biases]))
    return jax.tree.map(lambda leaf: leaf * factor, gradient)


def make_eval_step(model: nn.Module, dropout_rate: Rate = 0.0) -> EvalStep:
    """Metric sums and logits of one batch, without masks: eval_step(params, batch).

    `dropout_rate`, which may be traced, matters to classic dropout alone: it scales down at evaluation.
    """

    def eval_step(params: Params, batch: Batch) -> tuple[MetricSums, jax.Array]:
        logits: Any = model.apply({"params": params}, batch.images, train=False, dropout_rate=dropout_rate)
        loss = example_loss(logits, batch.labels)
        return metric_sums(logits, batch.labels, loss, batch.weight), logits

    return eval_step


def train_epoch(
    step: TrainStep, state: TrainState, data: Arrays, plan: jax.Array, hparams: HParams
) -> tuple[TrainState, MetricSums]:
    """Follow an index plan, i32[steps, batch]: a whole epoch's, or any part of one.

    Its images are gathered at once, as uint8, for within the loop a gather costs more than it moves.
    Returns the state after it and the metric sums over its examples, each batch measured before its
    update, as Keras reports training metrics.
    """

    def body(state: TrainState, batch: Batch) -> tuple[TrainState, MetricSums]:
        return step(state, scaled(batch), hparams)

    state, sums = jax.lax.scan(body, state, take(data.images, data.labels, plan))
    return state, total(sums)


def evaluate(eval_step: EvalStep, params: Params, data: Arrays) -> tuple[MetricSums, jax.Array]:
    """Metric sums over all of `data`, each example exactly once, and the logits f32[n, classes]."""
    examples = data.labels.shape[0]
    plan = sequential_plan(examples, min(EVAL_BATCH, examples))

    def body(_: None, row: jax.Array) -> tuple[None, tuple[MetricSums, jax.Array]]:
        return None, eval_step(params, take_batch(data.images, data.labels, row))

    _, (sums, logits) = jax.lax.scan(body, None, plan)
    return total(sums), logits.reshape(-1, logits.shape[-1])[:examples]


def evaluate_shared(eval_step: EvalStep, params: Params, data: Arrays, axis_name: str) -> MetricSums:
    """Metric sums over all of `data`, to which each device along a mapped axis adds its share."""
    examples, devices = data.labels.shape[0], jax.lax.axis_size(axis_name)
    width = -(-min(EVAL_BATCH, examples) // devices)
    plan = sequential_plan(examples, devices * width).reshape(-1, devices, width)

    def body(_: None, row: jax.Array) -> tuple[None, MetricSums]:
        return None, eval_step(params, take_batch(data.images, data.labels, row))[0]

    _, sums = jax.lax.scan(body, None, plan[:, jax.lax.axis_index(axis_name)])
    return jax.lax.psum(total(sums), axis_name)


def epoch_plan(key: jax.Array, epoch: jax.Array | int, examples: int, batch_size: int) -> jax.Array:
    """The index plan of an epoch (counted from 0) of the run whose shuffle stream is `key`."""
    return shuffled_plan(jax.random.fold_in(key, epoch), examples, batch_size)


def train_run(
    model: nn.Module,
    make_optimizer: MakeOptimizer,
    key: jax.Array,
    hparams: HParams,
    train: Arrays,
    val: Arrays,
    *,
    epochs: int,
    batch_size: int,
) -> tuple[TrainState, MetricSums, MetricSums]:
    """A whole run as one function of its root key: `jit` it, or `vmap` it over keys and `hparams`.

    Returns:
        The final state, and the training and validation metric sums, f32[epochs] each.
    """
    step = make_train_step(model, make_optimizer)
    eval_step = make_eval_step(model, hparams.dropout_rate)
    sample = take_batch(train.images, train.labels, jnp.zeros((1,), jnp.int32)).images
    keys = streams(key)
    state = init_state(model, make_optimizer, keys, sample, hparams)

    def epoch(state: TrainState, number: jax.Array) -> tuple[TrainState, tuple[MetricSums, ...]]:
        plan = epoch_plan(keys.shuffle, number, train.labels.shape[0], batch_size)
        state, sums = train_epoch(step, state, train, plan, hparams)
        return state, (sums, evaluate(eval_step, state.params, val)[0])

    state, (train_sums, val_sums) = jax.lax.scan(epoch, state, jnp.arange(epochs))
    return state, train_sums, val_sums
