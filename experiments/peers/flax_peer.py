"""Plain Flax as a peer: Flax layers and a jitted step in a Python loop, like Flax's MNIST example.

The arrays stay on the device and a step takes the indices of its batch, so no images are copied; the state
is donated; losses stay on the device until the epoch ends.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from protocol import EVALUATION_BATCH, Arrays, EpochResult, Peer, Settings, serve, unit_floats

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


MODELS: dict[str, tuple[Callable[[float], nn.Module], optax.GradientTransformation]] = {
    "keras-cnn": (KerasCNN, optax.adam(1e-3, eps=1e-7)),
    "lenet-swish": (LeNetSwish, optax.rmsprop(1e-3, decay=0.9, eps=1e-7)),
}


@partial(jax.jit, donate_argnums=0)
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array, indices: jax.Array, key: jax.Array
) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
    """Update on the batch at `indices`; return the state, the summed loss and the number correct."""
    batch, targets = images[indices], labels[indices]

    def loss_of(params: Any) -> tuple[jax.Array, jax.Array]:
        rngs = {"dropout": jax.random.fold_in(key, state.step)}
        logits = state.apply_fn({"params": params}, batch, train=True, rngs=rngs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean(), logits

    (loss, logits), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    correct = jnp.sum(logits.argmax(-1) == targets)
    return state.apply_gradients(grads=grads), (loss * len(indices), correct)


@jax.jit
def count_correct(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Count correct predictions in a batch."""
    logits = state.apply_fn({"params": state.params}, images, train=False)
    return jnp.sum(logits.argmax(-1) == labels)


def build(settings: Settings, arrays: Arrays) -> Peer:
    """Build the network, its state and its data on the default device."""
    make_model, optimizer = MODELS[settings.model]
    model = make_model(settings.rate)
    images = jax.device_put(unit_floats(arrays.train_images))
    labels = jax.device_put(arrays.train_labels)
    starts = range(0, len(arrays.val_images), EVALUATION_BATCH)
    validation = [
        jax.device_put((unit_floats(arrays.val_images[at:end]), arrays.val_labels[at:end]))
        for at, end in ((start, start + EVALUATION_BATCH) for start in starts)
    ]
    init_key, dropout_key = jax.random.split(jax.random.key(settings.seed))
    params = model.init(init_key, images[:1], train=False)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optimizer)
    shuffler = np.random.default_rng(settings.seed)

    def train_epoch() -> EpochResult:
        nonlocal state
        order = shuffler.permutation(len(labels)).astype(np.int32)
        sums = []
        for start in range(0, len(order), settings.batch_size):
            indices = order[start : start + settings.batch_size]
            state, batch_sums = train_step(state, images, labels, indices, dropout_key)
            sums.append(batch_sums)
        accuracy = evaluate() if settings.validate else None
        jax.block_until_ready(state)
        loss, correct = np.sum(jax.device_get(sums), axis=0) / len(order)
        return EpochResult(float(loss), float(correct), accuracy)

    def evaluate() -> float:
        correct = [count_correct(state, *batch) for batch in validation]
        return float(np.sum(jax.device_get(correct)) / len(arrays.val_labels))

    return Peer(
        version={name: version(name) for name in ("jax", "flax", "optax")},
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        train_epoch=train_epoch,
        evaluate=evaluate,
    )


if __name__ == "__main__":
    serve(build)
