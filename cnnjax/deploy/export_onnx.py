"""A `ConvNet` written down as an ONNX graph, layer by layer.

Written by hand: no release of jax2onnx up to 0.17.1 works with JAX 0.12, and its newer ones refuse the Orbax
that saves the checkpoints. Only what `MODELS` are made of is known; `cnnjax.deploy.export` compares the
logits.
"""

from collections.abc import Mapping
from itertools import count
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import numpy as np

from cnnjax.errors import UserError
from cnnjax.models import Activation, ConvNet

OPSET = 13
"""Of 2020: whatever runs ONNX knows it."""
ACTIVATIONS: Mapping[Activation, str] = MappingProxyType({nn.relu: "Relu", nn.swish: "Swish"})


def encode(model: ConvNet, params: Any, image: tuple[int, int, int]) -> bytes:
    """A model with the input "images", f32[n, *image], and the output "logits", f32[n, classes]; n is open.

    Raises:
        UserError: the extra is missing, or `model` is not one that can be written.
    """
    onnx = _onnx()
    if model.pooling != "max" or model.activation not in ACTIVATIONS:
        raise UserError("only networks with max pooling and relu or swish can be written as ONNX")
    activation = ACTIVATIONS[model.activation]
    nodes: list[Any] = []
    arrays: list[Any] = []
    numbers = count()

    def constant(value: Any) -> str:
        arrays.append(onnx.numpy_helper.from_array(np.asarray(value), f"constant_{next(numbers)}"))
        return arrays[-1].name

    def node(kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{kind}_{next(numbers)}"
        nodes.append(onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def activate(x: str) -> str:
        return node("Mul", x, node("Sigmoid", x)) if activation == "Swish" else node(activation, x)

    def dense(x: str, layer: Any, output: str | None = None) -> str:
        return node("Gemm", x, constant(layer["kernel"]), constant(layer["bias"]), output=output)

    x = "images"
    if model.pixel_scale != 1:
        x = node("Mul", x, constant(np.float32(model.pixel_scale)))
    x = node("Transpose", x, perm=(0, 3, 1, 2))
    padding = "SAME_UPPER" if model.padding == "SAME" else "VALID"
    for block in range(len(model.features)):
        layer = params[f"Conv_{block}"]
        kernel = np.transpose(layer["kernel"], (3, 2, 0, 1))
        x = activate(node("Conv", x, constant(kernel), constant(layer["bias"]), auto_pad=padding))
        x = node("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    x = node("Flatten", node("Transpose", x, perm=(0, 2, 3, 1)))
    for layer in range(len(model.hidden)):
        x = activate(dense(x, params[f"Dense_{layer}"]))
    dense(x, params[f"Dense_{len(model.hidden)}"], output="logits")

    def tensor(name: str, *shape: int) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", *shape))

    graph = onnx.helper.make_graph(
        nodes, "cnnjax", [tensor("images", *image)], [tensor("logits", model.classes)], arrays
    )
    operators = [onnx.helper.make_opsetid("", OPSET)]
    written = onnx.helper.make_model(graph, opset_imports=operators, ir_version=8, producer_name="cnnjax")
    onnx.checker.check_model(written, full_check=True)
    return written.SerializeToString(deterministic=True)


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of f32[n, height, width, channels].

    Raises:
        UserError: the extra is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(error) from error
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"images": images})[0])


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise _missing(error) from error
    return onnx


def _missing(error: ImportError) -> UserError:
    return UserError(f"--format onnx needs an extra: pip install 'cnnjax[onnx]' ({error})")
