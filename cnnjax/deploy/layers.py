"""The table of a network's layers, as Keras users know it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnnjax.models import ConvNet, parameter_count
from cnnjax.pooling import POOLING

_POOLING_LAYERS = {
    "max": "MaxPooling2D",
    "average": "AveragePooling2D",
    "median": "MedianPooling2D",
}
_DROPOUT_LAYERS = {"spatial": "SpatialDropout2D", "gaussian": "GaussianDropout"}


class Layer(NamedTuple):
    """One row; `shape` is that of one example's output."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layers(model: ConvNet, shape: tuple[int, ...] = (28, 28, 1)) -> list[Layer]:
    """The layers of `model` on images of `shape` (height, width, channels), in order."""
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rows: list[Layer] = []

    def add(kind: str, shape: tuple[int, ...], name: str | None = None) -> None:
        alike = sum(row.kind == kind for row in rows)
        counted = parameter_count(params[name]) if name else 0
        rows.append(Layer(name or f"{kind}_{alike}", kind, shape, counted))

    def drop(shape: tuple[int, ...]) -> None:
        if model.dropout != "none":
            add(_DROPOUT_LAYERS.get(model.dropout, "Dropout"), shape)

    for block, features in enumerate(model.features):
        less = 0 if model.padding == "SAME" else model.kernel_size - 1
        convolved = (shape[0] - less, shape[1] - less, features)
        pool = POOLING[model.pooling]
        pooled = jax.eval_shape(pool, jax.ShapeDtypeStruct((1, *convolved), jnp.float32)).shape[1:]
        fused = model.pooling in ("strided", "none")
        add("Conv2D", pooled if fused else convolved, f"Conv_{block}")
        if not fused:
            add(_POOLING_LAYERS[model.pooling], pooled)
        shape = pooled
        if model.dropout_sites == "blocks":
            drop(shape)
    size = shape[0] * shape[1] * shape[2]
    add("Flatten", (size,))
    if model.dropout_sites == "flatten":
        drop((size,))
    for layer, width in enumerate((*model.hidden, model.classes)):
        add("Dense", (width,), f"Dense_{layer}")
    return rows
