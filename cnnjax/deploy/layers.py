"""The layers of a `ConvNet` in order: the one walk that summary, costs, ONNX and the report page share."""

from functools import partial
from math import prod
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from cnnjax.models import Activation, ConvNet, Padding

WINDOW = 2
_POOLING = {"max": "MaxPooling2D", "average": "AveragePooling2D", "median": "MedianPooling2D"}
_DROPOUT = {"spatial": "SpatialDropout2D", "gaussian": "GaussianDropout"}

Operation = Literal["scale", "conv", "pool", "dropout", "flatten", "dense"]


class Layer(NamedTuple):
    """One layer; settings that do not apply to its operation keep their defaults."""

    operation: Operation
    kind: str  # Keras's name for the layer
    name: str  # that of its parameters, if it has any
    inputs: tuple[int, ...]  # shapes are those of one example
    shape: tuple[int, ...]
    parameters: int
    size: int = 1  # side of the kernel or of the pooling window
    stride: int = 1  # keeps every stride-th output of the convolution with stride 1
    padding: Padding = "VALID"
    pooling: str = "none"  # the name, of a function of one's own too
    activation: Activation | None = None
    factor: float = 1.0


def layers(model: ConvNet, shape: tuple[int, ...] = (28, 28, 1)) -> list[Layer]:
    """Return the layers of `model` for images of `shape` (height, width, channels).

    Raises:
        UserError: the images are too small for the model.
    """
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    init = partial(model.init, mutable=True, capture_intermediates=True)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    params, outputs = variables["params"], variables["intermediates"]
    rows: list[Layer] = []

    def add(operation: Operation, kind: str, output: tuple[int, ...], **settings: Any) -> None:
        name = settings.pop("name", f"{kind}_{sum(row.kind == kind for row in rows)}")
        inputs = rows[-1].shape if rows else shape
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params.get(name, {})))
        rows.append(Layer(operation, kind, name, inputs, output, parameters, **settings))

    def add_dropout(sites: str) -> None:
        if model.dropout != "none" and model.dropout_sites == sites:
            add("dropout", _kind(model.dropout, _DROPOUT) or "Dropout", rows[-1].shape)

    if model.pixel_scale != 1:
        add("scale", "Rescaling", shape, factor=model.pixel_scale)
    lost = 0 if model.padding == "SAME" else model.kernel_size - 1
    convolution = {"size": model.kernel_size, "padding": model.padding, "activation": model.activation}
    stride = WINDOW if model.pooling == "strided" else 1
    height, width, _ = shape
    for block, features in enumerate(model.features):
        name = f"Conv_{block}"
        height, width = (height - lost) // stride, (width - lost) // stride
        add("conv", "Conv2D", (height, width, features), name=name, stride=stride, **convolution)
        if kind := _kind(model.pooling, _POOLING):
            pooling = model.pooling if isinstance(model.pooling, str) else kind
            _, height, width, channels = outputs[name]["__call__"][0].shape
            add("pool", kind, (height, width, channels), size=WINDOW, pooling=pooling)
        add_dropout("blocks")
    add("flatten", "Flatten", (prod(rows[-1].shape),))
    add_dropout("flatten")
    for layer, units in enumerate((*model.hidden, model.classes)):
        activation = model.activation if layer < len(model.hidden) else None
        add("dense", "Dense", (units,), name=f"Dense_{layer}", activation=activation)
    return rows


def _kind(layer: Any, names: dict[str, str]) -> str | None:
    """Return Keras's name of a named layer, where it has one, or the name of a function of one's own."""
    if isinstance(layer, str):
        return names.get(layer)
    function = layer.func if isinstance(layer, partial) else layer
    return getattr(function, "__name__", type(function).__name__)
