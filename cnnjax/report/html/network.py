"""A network as data for the page's scripts: layers in order, weights, examples and their logits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.deploy.layers import layers
from cnnjax.errors import UserError
from cnnjax.models import Activation, ConvNet
from cnnjax.report.html.encoding import encoded
from cnnjax.report.html.subjects import Run
from cnnjax.report.html.words import dataset, size

ACTIVATIONS: dict[Activation | None, str] = {nn.relu: "relu", nn.swish: "swish", None: "none"}
"""Those that network.js implements."""
DRAWING = (28, 28, 1)
"""Shape of a drawing on the pad."""
EXAMPLES = 20
"""Classes that have an example, at most."""
KNOWN = "networks with convolutions, relu or swish, and pooling and dropout by name, but not classic dropout"
"""Those that network.js computes."""


def obstacle(run: Run) -> str:
    """Say why the page cannot compute the network of a run on drawings; return "" if it can."""
    shape = run.test.image_shape
    if type(run.model) is not ConvNet:
        return f"they show a ConvNet, and {run.config.model} is another network"
    if shape != DRAWING:
        return f"they take drawings of {size(DRAWING)}, and its images are {size(shape)}"
    lacks = _unknown(run.model)
    return lacks and f"they show {KNOWN}; this one has {lacks}"


def _unknown(model: ConvNet) -> str:
    """Name the parts of a network of which network.js does not know one; "" if it knows them all."""
    own = callable(model.pooling) or callable(model.dropout)
    if not model.features:
        return "no convolution"
    if not (own or model.activation not in ACTIVATIONS or model.dropout == "classic"):
        return ""
    parts = model.activation, model.pooling, model.dropout
    return ", ".join(getattr(of, "__name__", str(of)) for of in parts)


def exported(model: ConvNet, params: Any, shape: tuple[int, ...] = DRAWING) -> dict[str, Any]:
    """Return what network.js reads: the image shape, the layers, and the weights as base64 of float32.

    Raises:
        UserError: network.js cannot compute this network.
    """
    if lacks := _unknown(model):
        raise UserError(f"a report evaluates {KNOWN}; this one has {lacks}")
    records: list[dict[str, Any]] = []
    weights: list[np.ndarray] = []
    for layer in layers(model, shape):
        record: dict[str, Any] = {"kind": layer.operation}
        match layer.operation:
            case "scale":
                record["factor"] = layer.factor
            case "conv":
                record |= {"padding": layer.padding, "activation": ACTIVATIONS[layer.activation]}
            case "pool":
                record |= {"reduce": layer.pooling, "window": layer.size}
            case "dense":
                record["activation"] = ACTIVATIONS[layer.activation]
        if layer.parameters:
            kernel, bias = (np.asarray(params[layer.name][part], np.float32) for part in ("kernel", "bias"))
            weights += [kernel.ravel(), bias.ravel()]
            record |= {"name": layer.name, "kernel": kernel.shape}
        records.append(record)
        if layer.stride > 1:
            records.append({"kind": "pool", "reduce": "strided", "window": layer.stride})
    return {"input": shape, "layers": records, "weights": encoded(np.concatenate(weights))}


def playable(run: Run) -> dict[str, Any]:
    """Return what page.js needs: the network, an example of each class, and JAX's logits for it.

    Raises:
        UserError: network.js cannot compute this network.
    """
    assert isinstance(run.model, ConvNet)
    examples = np.unique(run.test.labels, return_index=True)[1][:EXAMPLES]
    images = jnp.asarray(run.test.images[examples], jnp.float32) / 255
    # The page computes in float32, whatever the run computed in.
    apply: Any = jax.jit(run.model.clone(dtype="float32").apply)
    return {
        "name": run.name,
        "dataset": dataset(run.config.dataset),
        "rate": run.config.dropout_rate,
        "classes": run.class_names,
        **exported(run.model, run.params, run.test.images.shape[1:]),
        "examples": [
            {"label": int(run.test.labels[i]), "pixels": encoded(run.test.images[i])} for i in examples
        ],
        "logits": apply({"params": run.params}, images).tolist(),
    }
