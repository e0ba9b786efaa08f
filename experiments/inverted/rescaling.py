"""Training of networks that differ only in the form of dropout, with or without rescaling.

With p the probability of keeping a unit, classic dropout before a kernel W computes the same
function as inverted dropout before V = p W. `scale_kernel` converts the weights and `rescaled` the
optimizer; `make_training` trains many seeds with any scaling of initial weights and steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax.batches import take_batch
from cnnjax.config import HParams
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums, means, total
from cnnjax.state import MakeOptimizer, Params, TrainState
from cnnjax.train import Arrays, epoch_plan, evaluate, make_eval_step, make_train_step


def scale_kernel(params: Params, factor: Any) -> Params:
    """Multiply the kernel of Dense_0, the layer after dropout, and nothing else."""
    return params | {"Dense_0": params["Dense_0"] | {"kernel": params["Dense_0"]["kernel"] * factor}}


def rescaled(optimizer: optax.GradientTransformation, factor: jax.Array) -> optax.GradientTransformation:
    """Rescale an optimizer so that it moves W = factor V as `optimizer` moves V."""
    scale = optax.stateless(lambda updates, _: scale_kernel(updates, factor))
    return optax.chain(scale, optimizer, scale)


def evaluation_sums(model: nn.Module, params: Params, data: Arrays, rate: jax.Array | float) -> MetricSums:
    """Evaluate a network trained at dropout `rate` on `data`; return metric sums."""
    return evaluate(make_eval_step(model, rate), params, data)[0]


class TrainedArm(NamedTuple):
    """The networks of one arm; every leaf has a leading axis of seeds."""

    params: Params
    loss: Any  # f32[seeds, epochs], during training
    test_loss: Any  # f32[seeds, epochs]
    test_error: Any  # f32[seeds, epochs], fraction
    first_step: Any  # f32[seeds], norm of the first step of Dense_0's kernel


@partial(jax.jit, static_argnames="model")
def first_weights(model: nn.Module, seeds: jax.Array) -> Params:
    """Return the initial weights that all arms of a seed share before rescaling, with an axis of seeds."""

    def one(seed: jax.Array) -> Params:
        return model.init(streams(jax.random.key(seed)).init, jnp.zeros((1, 28, 28, 1)))["params"]

    return jax.lax.map(one, seeds)


def make_training(
    model: nn.Module, make_optimizer: MakeOptimizer, *, batch_size: int, epochs: int
) -> Callable[..., TrainedArm]:
    """Compile the training of all seeds of an arm; one program serves every arm of a model and optimizer.

    Returns:
        program(seeds u32[n], initial weights, start factor, steps factor, hparams, training data, test data),
        where factors and hyperparameters are f32[].
    """

    def one(
        member: tuple[jax.Array, Params],
        start: jax.Array,
        factor: jax.Array,
        hparams: HParams,
        train: Arrays,
        test: Arrays,
    ) -> TrainedArm:
        def optimizer(hparams: HParams) -> optax.GradientTransformation:
            return rescaled(make_optimizer(hparams), factor)

        seed, weights = member
        keys, params = streams(jax.random.key(seed)), scale_kernel(weights, start)
        step = make_train_step(model, optimizer)
        state = TrainState(jnp.zeros((), jnp.int32), params, optimizer(hparams).init(params), keys.dropout)

        def follow(state: TrainState, row: jax.Array) -> tuple[TrainState, tuple[MetricSums, jax.Array]]:
            after, sums = step(state, take_batch(train.images, train.labels, row), hparams)
            kernel, before = (s.params["Dense_0"]["kernel"] for s in (after, state))
            return after, (sums, jnp.linalg.norm(kernel - before))

        def epoch(state: TrainState, number: jax.Array) -> tuple[TrainState, tuple[jax.Array, ...]]:
            plan = epoch_plan(keys.shuffle, number, train.labels.shape[0], batch_size)
            state, (sums, moved) = jax.lax.scan(follow, state, plan)
            tested = means(evaluation_sums(model, state.params, test, hparams.dropout_rate))
            return state, (means(total(sums))["loss"], tested["loss"], 1 - tested["accuracy"], moved[0])

        state, (loss, test_loss, test_error, moved) = jax.lax.scan(epoch, state, jnp.arange(epochs))
        return TrainedArm(state.params, loss, test_loss, test_error, moved[0])

    @jax.jit
    def program(seeds: jax.Array, weights: Params, *shared: Any) -> TrainedArm:
        return jax.lax.map(lambda member: one(member, *shared), (seeds, weights))

    return program
