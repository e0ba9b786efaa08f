"""The network of tests/data/golden, whose source is part of what that run is: do not change this file."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Small(nn.Module):
    """A convolution with strides, dropout whose key is that of a run's first layer, and a dense layer."""

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, dropout_rate: Any = 0.0, masks: Any = None) -> jax.Array:
        x = nn.relu(nn.Conv(4, (5, 5), strides=(4, 4))(x)).reshape(x.shape[0], -1)
        if train:
            keep = jax.random.uniform(masks.key(0), x.shape) >= dropout_rate
            x = jnp.where(keep, x / (1 - dropout_rate), 0.0)
        return nn.Dense(self.classes)(x)


NETWORK = Small()
