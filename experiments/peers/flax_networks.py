"""The networks of the benchmark in plain Flax, with dropout as Flax has it.

The tutorials' two, and two that cnnjax knows nothing of: a perceptron and a ResNet with BatchNorm.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

Dense = partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform())
Conv = partial(nn.Conv, kernel_init=nn.initializers.glorot_uniform())


class KerasCNN(nn.Module):
    """Conv 10@3x3 same relu, MaxPool 2, Flatten, Dropout, Dense 100 relu, Dense 10."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return logits float32[B,10] of images float32[B,28,28,1]."""
        x = nn.relu(Conv(10, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        x = nn.relu(Dense(100)(x))
        return Dense(10)(x)


class LeNetSwish(nn.Module):
    """Conv 3@5x5 and 6@5x5, valid, swish, each with MaxPool 2; Dropout, Dense 84 swish, Dense 10."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return logits float32[B,10] of images float32[B,28,28,1]."""
        for features in (3, 6):
            x = nn.swish(Conv(features, (5, 5), padding="VALID")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        x = nn.swish(Dense(84)(x))
        return Dense(10)(x)


class MLP(nn.Module):
    """Dense 256 relu, twice; Dropout, Dense 10."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return logits float32[B,10] of images float32[B,28,28,1]."""
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(Dense(256)(x))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return Dense(10)(x)


class ResNet(nn.Module):
    """Conv 16@3x3, two residual blocks of two such convolutions, BatchNorm after each; average, Dense 10."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return logits float32[B,10] of images float32[B,28,28,1]."""

        def normalised(x: jax.Array) -> jax.Array:
            x = Conv(16, (3, 3), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)

        x = nn.relu(normalised(x))
        for _ in range(2):
            x = nn.relu(x + normalised(nn.relu(normalised(x))))
        x = nn.Dropout(self.rate, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return Dense(10)(x)


def adam() -> optax.GradientTransformation:
    """Adam as Keras has it by default."""
    return optax.adam(1e-3, eps=1e-7)


MODELS: dict[str, tuple[Callable[[float], nn.Module], Callable[[], optax.GradientTransformation]]] = {
    "keras-cnn": (KerasCNN, adam),
    "lenet-swish": (LeNetSwish, partial(optax.rmsprop, 1e-3, decay=0.9, eps=1e-7)),
    "mlp": (MLP, adam),
    "resnet": (ResNet, adam),
}
