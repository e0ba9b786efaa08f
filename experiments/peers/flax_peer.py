"""Plain Flax as a peer: Flax layers and a jitted step in a Python loop, like Flax's MNIST example.

The arrays stay on the device and a step takes the indices of its batch, so no images are copied; the state
is donated; losses stay on the device until the epoch ends.
"""

from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from flax_networks import MODELS
from protocol import EVALUATION_BATCH, Arrays, EpochResult, Peer, Settings, serve, unit_floats


class TrainState(train_state.TrainState):
    """With the statistics of BatchNorm, if there are any."""

    collections: Any


@partial(jax.jit, donate_argnums=0)
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array, indices: jax.Array, key: jax.Array
) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
    """Update on the batch at `indices`; return the state, the summed loss and the number correct."""
    batch, targets = images[indices], labels[indices]

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        variables, mutable = {"params": params, **state.collections}, list(state.collections)
        rngs = {"dropout": jax.random.fold_in(key, state.step)}
        logits, updated = state.apply_fn(variables, batch, train=True, rngs=rngs, mutable=mutable)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean(), (logits, updated)

    (loss, (logits, updated)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    correct = jnp.sum(logits.argmax(-1) == targets)
    return state.apply_gradients(grads=grads, collections=updated), (loss * len(indices), correct)


@jax.jit
def count_correct(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Count correct predictions in a batch."""
    logits = state.apply_fn({"params": state.params, **state.collections}, images, train=False)
    return jnp.sum(logits.argmax(-1) == labels)


def build(settings: Settings, arrays: Arrays) -> Peer:
    """Build the network, its state and its data on the default device."""
    make_model, make_optimizer = MODELS[settings.model]
    model = make_model(settings.rate)
    images = jax.device_put(unit_floats(arrays.train_images))
    labels = jax.device_put(arrays.train_labels)
    starts = range(0, len(arrays.val_images), EVALUATION_BATCH)
    validation = [
        jax.device_put((unit_floats(arrays.val_images[at:end]), arrays.val_labels[at:end]))
        for at, end in ((start, start + EVALUATION_BATCH) for start in starts)
    ]
    init_key, dropout_key = jax.random.split(jax.random.key(settings.seed))
    collections = dict(model.init(init_key, images[:1], train=False))
    params = collections.pop("params")
    state = TrainState.create(
        apply_fn=model.apply, params=params, tx=make_optimizer(), collections=collections
    )
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
