"""A network as the page needs it: its layers in order, and their weights one after the other."""

from typing import Any

import flax.linen as nn
import numpy as np

from cnnjax.errors import UserError
from cnnjax.models import Activation, ConvNet
from cnnjax.report.html.encoding import encoded

ACTIVATIONS: dict[Activation, str] = {nn.relu: "relu", nn.swish: "swish"}
"""Those that network.js knows."""


def exported(model: ConvNet, params: Any, shape: tuple[int, ...] = (28, 28, 1)) -> dict[str, Any]:
    """What network.js reads: the shape of an image, the layers, and the weights as base64 of float32.

    Raises:
        UserError: the page cannot compute this network.
    """
    if model.activation not in ACTIVATIONS or model.dropout == "classic":
        raise UserError(
            "a report evaluates networks with relu or swish and without classic dropout; "
            f"this one has {getattr(model.activation, '__name__', model.activation)} and {model.dropout}"
        )
    activation = ACTIVATIONS[model.activation]
    layers: list[dict[str, Any]] = []
    weights: list[np.ndarray] = []

    def add(kind: str, name: str | None = None, **more: Any) -> None:
        layer = {"kind": kind, **more}
        if name:
            kernel, bias = (np.asarray(params[name][part], np.float32) for part in ("kernel", "bias"))
            weights.extend((kernel.ravel(), bias.ravel()))
            layer |= {"name": name, "kernel": kernel.shape}
        layers.append(layer)

    def drop() -> None:
        if model.dropout != "none":
            add("dropout")

    if model.pixel_scale != 1.0:
        add("scale", factor=model.pixel_scale)
    for block in range(len(model.features)):
        add("conv", f"Conv_{block}", padding=model.padding, activation=activation)
        if model.pooling != "none":
            add("pool", reduce=model.pooling, window=2)
        if model.dropout_sites == "blocks":
            drop()
    add("flatten")
    if model.dropout_sites == "flatten":
        drop()
    for layer in range(len(model.hidden) + 1):
        last = layer == len(model.hidden)
        add("dense", f"Dense_{layer}", activation="none" if last else activation)
    return {"input": shape, "layers": layers, "weights": encoded(np.concatenate(weights))}
