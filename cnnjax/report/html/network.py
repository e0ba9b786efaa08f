"""A network as data for the page's JavaScript: its layers in order and their weights."""

from typing import Any

import flax.linen as nn
import numpy as np

from cnnjax.deploy.layers import layers
from cnnjax.errors import UserError
from cnnjax.models import Activation, ConvNet
from cnnjax.report.html.encoding import encoded

ACTIVATIONS: dict[Activation | None, str] = {nn.relu: "relu", nn.swish: "swish", None: "none"}
"""Those that network.js implements."""


def exported(model: ConvNet, params: Any, shape: tuple[int, ...] = (28, 28, 1)) -> dict[str, Any]:
    """Return what network.js reads: the image shape, the layers, and the weights as base64 of float32.

    Raises:
        UserError: network.js cannot compute this network.
    """
    if model.activation not in ACTIVATIONS or model.dropout == "classic":
        raise UserError(
            "a report evaluates networks with relu or swish and without classic dropout; "
            f"this one has {getattr(model.activation, '__name__', model.activation)} and {model.dropout}"
        )
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
