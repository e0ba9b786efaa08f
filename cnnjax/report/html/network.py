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
from cnnjax.report.html.subjects import CLASSES, Run
from cnnjax.report.html.words import DATASETS

ACTIVATIONS: dict[Activation | None, str] = {nn.relu: "relu", nn.swish: "swish", None: "none"}
"""Those that network.js implements."""


def exported(model: ConvNet, params: Any, shape: tuple[int, ...] = (28, 28, 1)) -> dict[str, Any]:
    """Return what network.js reads: the image shape, the layers, and the weights as base64 of float32.

    Raises:
        UserError: network.js cannot compute this network.
    """
    own = callable(model.pooling) or callable(model.dropout)
    if own or model.activation not in ACTIVATIONS or model.dropout == "classic":
        parts = (getattr(of, "__name__", str(of)) for of in (model.activation, model.pooling, model.dropout))
        raise UserError(
            "a report evaluates networks with relu or swish, and with pooling and dropout by name, but "
            f"without classic dropout; this one has {', '.join(parts)}"
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


def playable(run: Run) -> dict[str, Any]:
    """Return what page.js needs: the network, an example of each class, and JAX's logits for it."""
    examples = np.unique(run.test.labels, return_index=True)[1]
    images = jnp.asarray(run.test.images[examples], jnp.float32) / 255
    # The page computes in float32, whatever the run computed in.
    apply: Any = jax.jit(run.model.clone(dtype="float32").apply)
    return {
        "name": run.name,
        "dataset": DATASETS[run.config.dataset],
        "rate": run.config.dropout_rate,
        "classes": CLASSES[run.config.dataset],
        **exported(run.model, run.params, run.test.images.shape[1:]),
        "examples": [
            {"label": int(run.test.labels[i]), "pixels": encoded(run.test.images[i])} for i in examples
        ],
        "logits": apply({"params": run.params}, images).tolist(),
    }
