"""Networks that differ in the form of dropout alone, rescaled so that they are the same function, or are not.

With p the probability to be kept, the classic form with a kernel W after it computes what the inverted form
computes with V = p W: `scale_kernel` turns one into the other, `rescaled` their optimizers, and
`make_training` trains many seeds from a start and with steps that are rescaled, or are not.
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
    """An optimizer that takes in W = factor V the path which `optimizer` takes in V."""
    scale = optax.stateless(lambda updates, _: scale_kernel(updates, factor))
    return optax.chain(scale, optimizer, scale)


def evaluation_sums(model: nn.Module, params: Params, data: Arrays, rate: jax.Array | float) -> MetricSums:
    """Metric sums over `data` without masks, as a network trained at `rate` is evaluated."""
    return evaluate(make_eval_step(model, rate), params, data)[0]


class Trained(NamedTuple):
    """The networks of one arm; every leaf has a leading axis of seeds."""

    params: Params
    loss: Any  # f32[seeds, epochs], as seen in training
    test_loss: Any  # f32[seeds, epochs]
    test_error: Any  # f32[seeds, epochs], fraction
    first_step: Any  # f32[seeds], the distance of the first step in Dense_0's kernel


@partial(jax.jit, static_argnames="model")
def first_weights(model: nn.Module, seeds: jax.Array) -> Params:
    """The weights that every arm of a seed starts from, before rescaling: u32[seeds] -> leading axis."""

    def one(seed: jax.Array) -> Params:
        return model.init(streams(jax.random.key(seed)).init, jnp.zeros((1, 28, 28, 1)))["params"]

    return jax.lax.map(one, seeds)


def make_training(
    model: nn.Module, make_optimizer: MakeOptimizer, *, batch_size: int, epochs: int
) -> Callable[..., Trained]:
    """All seeds of an arm as one compiled program, which serves every arm of this model and optimizer.

    Returns:
        program(seeds u32[n], first weights, start factor, steps factor, hparams, training data, test data);
        the factors and hyperparameters are f32[], so that one program serves them all.
    """

    def one(
        member: tuple[jax.Array, Params],
        start: jax.Array,
        factor: jax.Array,
        hparams: HParams,
        train: Arrays,
        test: Arrays,
    ) -> Trained:
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
        return Trained(state.params, loss, test_loss, test_error, moved[0])

    @jax.jit
    def program(seeds: jax.Array, weights: Params, *shared: Any) -> Trained:
        return jax.lax.map(lambda member: one(member, *shared), (seeds, weights))

    return program
