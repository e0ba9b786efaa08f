"""Training as pure functions: a step, an epoch, a run."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.batches import Batch, sequential_plan, shuffled_plan, take
from cnnjax.data import Dataset
from cnnjax.kernels.parts import scaled_together, sum_over_parts, varying
from cnnjax.keys import Masks, Streams, streams
from cnnjax.metrics import MetricSums, metric_sums, total
from cnnjax.shapes import Array, Float32, Index, Int32, Key, UInt8
from cnnjax.state import Params, TrainState
from cnnjax.task import HParams, Task, forward, init_state, predict

TrainStep = Callable[[TrainState, Batch, HParams], tuple[TrainState, MetricSums]]
EvalStep = Callable[[TrainState, Batch, HParams], tuple[MetricSums, jax.Array]]
Plan = Int32[Array, "steps batch"]
EVAL_BATCH = 500


class Arrays(NamedTuple):
    """A data set in device memory."""

    images: UInt8[Array, "n height width channels"]
    labels: Int32[Array, " n"]


def to_device(dataset: Dataset) -> Arrays:
    """Copy a data set to the device, as uint8, once."""
    return Arrays(jnp.asarray(dataset.images), jnp.asarray(dataset.labels))


def make_train_step(task: Task, axis_name: str | None = None) -> TrainStep:
    """Make a step of stochastic gradient descent on the mean loss over the batch's examples.

    Args:
        task: what is trained.
        axis_name: the mapped axis that splits the batch, for `pmap` and `shard_map`; the state is the same on
            every device, and stays so.

    Returns:
        step(state, batch, hparams) -> (state, metric sums over the whole batch, before the update).
    """

    def step(state: TrainState, batch: Batch, hparams: HParams) -> tuple[TrainState, MetricSums]:
        def gradient_sum(params: Params, batch: Batch, first_example: Index) -> tuple[Params, Any]:
            masks = Masks(state.key, state.step, first_example)

            def loss_sum(params: Params) -> tuple[jax.Array, Any]:
                logits, updated = forward(
                    task, params, state.collections, batch.images, hparams, masks, axis_name
                )
                loss = task.loss(logits, batch.labels)
                sums = metric_sums(logits, batch.labels, loss, batch.weight)
                return jnp.sum(loss * batch.weight), (sums, updated)

            return jax.grad(loss_sum, has_aux=True)(params)

        params, first_example = state.params, 0
        if axis_name is not None:
            # Under shard_map, the gradient of an unvarying parameter carries a psum already; marked as
            # varying, the gradient is this device's own part everywhere, and is summed once, below.
            params = varying(params, axis_name)
            first_example = jax.lax.axis_index(axis_name) * batch.labels.shape[0]
        # Statistics of a whole batch are not a sum over its parts.
        over_batch = gradient_sum if state.collections else sum_over_parts(gradient_sum, axis_name)
        gradient, (sums, collections) = over_batch(params, batch, first_example)
        if axis_name is not None:
            gradient, sums = jax.lax.psum((gradient, sums), axis_name)
            collections = jax.lax.pmean(collections, axis_name)
        gradient = scaled_together(gradient, 1 / sums.examples)
        updates, opt_state = task.optimizer(hparams).update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.key, collections), sums

    return step


def make_eval_step(task: Task) -> EvalStep:
    """Make the evaluation of one batch, without masks: metric sums and logits."""

    def eval_step(state: TrainState, batch: Batch, hparams: HParams) -> tuple[MetricSums, jax.Array]:
        logits = predict(task, state, batch.images, hparams)
        loss = task.loss(logits, batch.labels)
        return metric_sums(logits, batch.labels, loss, batch.weight), logits

    return eval_step


def train_epoch(
    step: TrainStep, state: TrainState, data: Arrays, plan: Plan, hparams: HParams
) -> tuple[TrainState, MetricSums]:
    """Follow an index plan: a whole epoch's, or any part of one.

    Its images are gathered at once, as uint8, because within the loop a gather costs more than it moves.
    Returns the state after it and the metric sums over its examples, each batch measured before its update,
    as Keras reports training metrics.
    """
    batches = take(data.images, data.labels, plan)
    state, sums = jax.lax.scan(lambda state, batch: step(state, batch, hparams), state, batches)
    return state, total(sums)


def evaluate(
    eval_step: EvalStep, state: TrainState, data: Arrays, hparams: HParams, *, axis_name: str | None = None
) -> tuple[MetricSums, Float32[Array, "n classes"] | None]:
    """Compute metric sums over all of `data`, each example exactly once, and the logits.

    Along a mapped axis, each device adds its share to the sums, and the logits are left out.
    """
    examples = data.labels.shape[0]
    alone = axis_name is None
    devices, device = (1, 0) if alone else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))
    width = -(-min(EVAL_BATCH, examples) // devices)
    plan = sequential_plan(examples, devices * width).reshape(-1, devices, width)[:, device]

    def body(_: None, row: jax.Array) -> tuple[None, tuple[MetricSums, jax.Array]]:
        return None, eval_step(state, take(data.images, data.labels, row), hparams)

    _, (sums, logits) = jax.lax.scan(body, None, plan)
    if not alone:
        return jax.lax.psum(total(sums), axis_name), None
    return total(sums), logits.reshape(-1, logits.shape[-1])[:examples]


def epoch_plan(shuffle: Key[Array, ""], epoch: Index, examples: int, batch_size: int) -> Plan:
    """Return the index plan of an epoch, counted from 0, of the run with this shuffle stream."""
    return shuffled_plan(jax.random.fold_in(shuffle, epoch), examples, batch_size)


class Training(NamedTuple):
    """The pure functions that a run is composed of; `jit`, `vmap` or shard them as you like."""

    init: Callable[[Streams, HParams], TrainState]
    plan: Callable[[Key[Array, ""], Index], Plan]  # (shuffle stream, epoch)
    epoch: Callable[[TrainState, Arrays, Plan, HParams], tuple[TrainState, MetricSums]]
    evaluate: Callable[[TrainState, Arrays, HParams], tuple[MetricSums, jax.Array | None]]


def make_training(
    task: Task, image_shape: tuple[int, ...], examples: int, batch_size: int, axis_name: str | None = None
) -> Training:
    """Build the functions of a run: a single one, a member of a population, or one shard of a divided run.

    Args:
        task: what is trained.
        image_shape: (height, width, channels).
        examples: size of the training set.
        batch_size: examples a step, over all devices.
        axis_name: the mapped axis that divides a batch; `evaluate` then gives no logits.
    """
    return Training(
        init=lambda keys, hparams: init_state(task, keys, image_shape, hparams),
        plan=lambda shuffle, epoch: epoch_plan(shuffle, epoch, examples, batch_size),
        epoch=partial(train_epoch, make_train_step(task, axis_name)),
        evaluate=partial(evaluate, make_eval_step(task), axis_name=axis_name),
    )


def train_run(
    task: Task,
    root: Key[Array, ""],
    hparams: HParams,
    train: Arrays,
    val: Arrays,
    *,
    epochs: int,
    batch_size: int,
) -> tuple[TrainState, MetricSums, MetricSums]:
    """Train a whole run, a function of its root key: `jit` it, or `vmap` it over keys and `hparams`.

    Returns:
        The final state, and the training and validation metric sums, f32[epochs] each.
    """
    run, keys = make_training(task, train.images.shape[1:], train.labels.shape[0], batch_size), streams(root)

    def epoch(state: TrainState, number: jax.Array) -> tuple[TrainState, tuple[MetricSums, MetricSums]]:
        state, sums = run.epoch(state, train, run.plan(keys.shuffle, number), hparams)
        return state, (sums, run.evaluate(state, val, hparams)[0])

    state, (train_sums, val_sums) = jax.lax.scan(epoch, run.init(keys, hparams), jnp.arange(epochs))
    return state, train_sums, val_sums
