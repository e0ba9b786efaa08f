"""Optimizers with Keras's formulas and defaults, as optax transformations.

Every number is read from the traced hyperparameters, so that the members of a population can differ in it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.config import OPTIMIZER_NAMES, HParams
from cnnjax.shapes import Array, Int32


class AdamState(NamedTuple):
    """State of `keras_adam`; `mean` and `square` have the structure of the parameters."""

    step: Int32[Array, ""]  # updates so far
    mean: Any
    square: Any


def keras_adam(hparams: HParams, b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) as Keras computes it, with its defaults: b1 0.9, b2 0.999, epsilon 1e-7.

    Keras adds epsilon to sqrt(v), which the paper calls epsilon-hat, and optax to the bias-corrected root:
    for gradients near 1e-6 the two differ by 3e-3 of the step. With the bias corrections in one scalar
    there is also one division an element instead of three.
    """
    epsilon = 1e-7

    def init(params: Any) -> AdamState:
        # Arrays of their own: a state whose members share buffers cannot be donated.
        mean, square = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return AdamState(jnp.zeros((), jnp.int32), mean, square)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdamState]:
        del params
        step = state.step + 1
        t = step.astype(jnp.float32)
        mean = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.mean, updates)
        square = jax.tree.map(lambda v, g: v + (1 - b2) * (g * g - v), state.square, updates)
        rate = hparams.learning_rate * jnp.sqrt(1 - b2**t) / (1 - b1**t)
        steps = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + epsilon), mean, square)
        return steps, AdamState(step, mean, square)

    return optax.GradientTransformation(init, update)


def rmsprop(hparams: HParams) -> optax.GradientTransformation:
    """RMSprop with Keras's defaults: rho 0.9, epsilon 1e-7 inside the root."""
    return optax.rmsprop(hparams.learning_rate, decay=0.9, eps=1e-7)


def sgd(hparams: HParams) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum, and decoupled weight decay of all parameters."""
    return optax.chain(
        optax.trace(hparams.momentum),
        optax.add_decayed_weights(hparams.weight_decay),
        optax.scale_by_learning_rate(hparams.learning_rate),
    )


def adamw(hparams: HParams) -> optax.GradientTransformation:
    """`keras_adam` with decoupled weight decay of all parameters (Loshchilov & Hutter 2019)."""
    shrinkage = -hparams.learning_rate * hparams.weight_decay
    return optax.chain(keras_adam(hparams), optax.add_decayed_weights(shrinkage))


MakeOptimizer = Callable[[HParams], optax.GradientTransformation]
OPTIMIZERS: Mapping[str, MakeOptimizer] = MappingProxyType(
    dict(zip(OPTIMIZER_NAMES, (keras_adam, rmsprop, sgd, adamw), strict=True))
)
"""By the name that Keras gives them; the learning rate is constant."""
