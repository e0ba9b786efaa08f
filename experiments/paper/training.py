"""The networks of the paper and how they are trained, as a `cnnjax.task.Task` takes them.

Everything here is what a user would write: a Linen module, a NamedTuple of traced numbers, an optax
transformation.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax.dropout import DropoutFunction
from cnnjax.kernels.layers import Dense, Dropout
from cnnjax.keys import Masks
from cnnjax.shapes import Array, Float32, Int32, Scalar

NO_LIMIT = 1e6
"""A bound on norms that no weights reach."""


class HParams(NamedTuple):
    """Every number of a run; all are traced, so that arms of one network share a compiled program."""

    learning_rate: Scalar = 0.1  # of the first update; falls linearly to 0
    updates: Scalar = 10_000.0  # at which it is 0
    momentum: Scalar = 0.95  # reached after a tenth of the updates, from `FIRST_MOMENTUM`
    input_rate: Scalar = 0.2  # probability of dropping a pixel: 1 - p of the paper
    hidden_rate: Scalar = 0.5  # of dropping a hidden unit
    max_norm: Scalar = NO_LIMIT  # c: bound on the norm of the weights into a unit
    l2: Scalar = 0.0
    l1: Scalar = 0.0  # in the last quarter of the updates
    sparsity: Scalar = 0.0  # weight of the divergence of the units' mean activations from `SPARSE`


FIRST_MOMENTUM, RISE, LATE, SPARSE = 0.5, 0.1, 0.75, 0.1


class FullyConnected(nn.Module):
    """Fully connected network with multiplicative noise on its inputs and on every hidden layer.

    Attributes:
        widths: units of the hidden layers.
        noise: a name in `cnnjax.dropout.DROPOUT`, or a function of that family; None draws none.
        logistic: logistic instead of rectified linear units.
        classes: number of logits.
    """

    widths: tuple[int, ...]
    noise: str | DropoutFunction | None = "inverted"
    logistic: bool = False
    classes: int = 10

    @nn.compact
    def __call__(
        self, images: Float32[Array, "n h w c"], train: bool, hparams: HParams, masks: Masks | None = None
    ) -> Float32[Array, "n classes"]:
        """Compute the logits. The mask of the inputs is number 0, that of hidden layer l number l."""

        def drop(x: jax.Array, rate: Scalar, site: int) -> jax.Array:
            if self.noise is None or not train:
                return x
            key, first = (None, 0) if masks is None else (masks.key(site), masks.first_example)
            return Dropout(self.noise, name=f"Dropout_{site}")(x, rate, key, first_example=first)

        x = drop(images.reshape(len(images), -1), hparams.input_rate, 0)
        for layer, width in enumerate(self.widths, 1):
            x = Dense(width, name=f"Dense_{layer}")(x)
            x = nn.sigmoid(x) if self.logistic else nn.relu(x)
            if train:
                divergence = sparsity_penalty(x.mean(0), self.logistic)
                x = penalised(x, len(x) * hparams.sparsity * divergence)
            x = drop(x, hparams.hidden_rate, layer)
        return Dense(self.classes, name="Logits")(x)


@jax.custom_vjp
def penalised(x: jax.Array, penalty: Float32[Array, ""]) -> jax.Array:
    """Return x, and add `penalty` to the loss that is differentiated: the sum over a batch's examples.

    A `Task`'s loss sees logits and labels alone; so a penalty on activations enters where they are made.
    """
    del penalty
    return x


penalised.defvjp(lambda x, penalty: (x, None), lambda _, gradient: (gradient, jnp.ones(())))


def sparsity_penalty(mean: Float32[Array, " units"], logistic: bool) -> Float32[Array, ""]:
    """Sum over units the KL divergence of a unit of mean activation `SPARSE` from one of this mean.

    Logistic units are taken as Bernoulli variables. Means of rectified units have no upper bound; they are
    taken as Poisson rates, whose derivative, 1 - SPARSE / mean, is that of the first author's code.
    """
    q = mean + 1e-6
    divergence = SPARSE * jnp.log(SPARSE / q) - SPARSE + q
    if logistic:
        divergence = SPARSE * jnp.log(SPARSE / q) + (1 - SPARSE) * jnp.log((1 - SPARSE) / (1 - q + 2e-6))
    return jnp.sum(divergence)


class MomentumState(NamedTuple):
    """State of `momentum_sgd`; `velocity` has the structure of the parameters."""

    step: Int32[Array, ""]
    velocity: Any


def momentum_sgd(hparams: HParams) -> optax.GradientTransformation:
    """Gradient descent with the paper's momentum, weight penalties and max-norm projection.

    Penalties and projection concern kernels, not biases.
    """

    def init(params: Any) -> MomentumState:
        return MomentumState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MomentumState]:
        done = state.step.astype(jnp.float32) / hparams.updates
        rate, momentum = learning_rate_at(done, hparams), momentum_at(done, hparams)
        l1 = jnp.where(done < LATE, 0.0, hparams.l1)

        def accelerated(v: jax.Array, g: jax.Array, w: jax.Array) -> jax.Array:
            return momentum * v + (g + hparams.l2 * w + l1 * jnp.sign(w) if w.ndim > 1 else g)

        def step(w: jax.Array, v: jax.Array) -> jax.Array:
            moved = w - rate * v
            return (projected(moved, hparams.max_norm) if w.ndim > 1 else moved) - w

        velocity = jax.tree.map(accelerated, state.velocity, updates, params)
        return jax.tree.map(step, params, velocity), MomentumState(state.step + 1, velocity)

    return optax.GradientTransformation(init, update)


def learning_rate_at(done: Scalar, hparams: HParams) -> Scalar:
    """Return the learning rate after this share of the updates: with fewer than the paper's, it must fall."""
    return hparams.learning_rate * jnp.maximum(0.0, 1 - done)


def momentum_at(done: Scalar, hparams: HParams) -> Scalar:
    """Return the momentum after this share of the updates: a line, then constant."""
    return FIRST_MOMENTUM + (hparams.momentum - FIRST_MOMENTUM) * jnp.minimum(1.0, done / RISE)


def projected(kernel: Float32[Array, "inputs units"], limit: Scalar) -> Float32[Array, "inputs units"]:
    """Scale the weights into each unit down to a norm of `limit`, where it is greater."""
    square = jnp.sum(kernel * kernel, axis=0, keepdims=True)
    return kernel * jnp.minimum(1.0, limit * jax.lax.rsqrt(jnp.maximum(square, 1e-12)))
