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

from cnnjax.config import HParams
from cnnjax.keys import streams
from cnnjax.metrics import MetricSums, means
from cnnjax.optimizers import keras_adam
from cnnjax.state import Params, TrainState, evaluation_state
from cnnjax.task import MakeOptimizer, Task
from cnnjax.train import Arrays, evaluate, make_eval_step
from cnnjax.train import make_training as training_of


def scale_kernel(params: Params, factor: Any) -> Params:
    """Multiply the kernel of Dense_0, the layer after dropout, and nothing else."""
    return params | {"Dense_0": params["Dense_0"] | {"kernel": params["Dense_0"]["kernel"] * factor}}


def rescaled(optimizer: optax.GradientTransformation, factor: jax.Array) -> optax.GradientTransformation:
    """Rescale an optimizer so that it moves W = factor V as `optimizer` moves V."""
    scale = optax.stateless(lambda updates, _: scale_kernel(updates, factor))
    return optax.chain(scale, optimizer, scale)


def evaluation_sums(model: nn.Module, params: Params, data: Arrays, rate: jax.Array | float) -> MetricSums:
    """Evaluate a network trained at dropout `rate` on `data`; return metric sums."""
    eval_step = make_eval_step(Task(model, keras_adam))  # the optimizer is not used
    return evaluate(eval_step, evaluation_state(params), data, HParams(dropout_rate=rate))[0]


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
        run = training_of(Task(model, optimizer), train.images.shape[1:], train.labels.shape[0], batch_size)
        keys, params = streams(jax.random.key(seed)), scale_kernel(weights, start)
        state = evaluation_state(params)._replace(opt_state=optimizer(hparams).init(params), key=keys.dropout)

        def epoch(state: TrainState, number: jax.Array) -> tuple[TrainState, tuple[jax.Array, ...]]:
            state, sums = run.epoch(state, train, run.plan(keys.shuffle, number), hparams)
            tested = means(run.evaluate(state, test, hparams)[0])
            return state, (means(sums)["loss"], tested["loss"], 1 - tested["accuracy"])

        stepped, _ = run.epoch(state, train, run.plan(keys.shuffle, 0)[:1], hparams)
        moved = jnp.linalg.norm(stepped.params["Dense_0"]["kernel"] - params["Dense_0"]["kernel"])
        state, (loss, test_loss, test_error) = jax.lax.scan(epoch, state, jnp.arange(epochs))
        return TrainedArm(state.params, loss, test_loss, test_error, moved)

    @jax.jit
    def program(seeds: jax.Array, weights: Params, *shared: Any) -> TrainedArm:
        return jax.lax.map(lambda member: one(member, *shared), (seeds, weights))

    return program
