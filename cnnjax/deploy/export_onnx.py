"""Convert a `ConvNet` to an ONNX graph, layer by layer.

This is done by hand because no release of jax2onnx up to 0.17.1 works with JAX 0.12, and its newer ones
conflict with the Orbax that saves the checkpoints. Only max pooling, relu, swish and dropout by name are
supported; `cnnjax.deploy.export` compares the logits.
"""

import importlib
from collections.abc import Mapping
from itertools import count
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import numpy as np

from cnnjax.deploy.layers import layers
from cnnjax.errors import UserError
from cnnjax.models import Activation, ConvNet
from cnnjax.shapes import Float32

OPSET = 13
"""From 2020, and supported by every current ONNX runtime."""
ACTIVATIONS: Mapping[Activation, str] = MappingProxyType({nn.relu: "Relu", nn.swish: "Swish"})


def encode(model: ConvNet, params: Any, image: tuple[int, int, int]) -> bytes:
    """Serialize `model` with the input "images", f32[n, *image], and the output "logits", f32[n, classes].

    The batch size n is a free dimension.

    Raises:
        UserError: the extra is not installed, or `model` has an unsupported layer.
    """
    onnx = _extra("onnx")
    if model.pooling != "max" or model.activation not in ACTIVATIONS or callable(model.dropout):
        raise UserError(
            "only networks with max pooling, relu or swish, and a dropout by name can be exported to ONNX; "
            "use stablehlo"
        )
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

    padding = "SAME_UPPER" if model.padding == "SAME" else "VALID"
    x = node("Transpose", "images", perm=(0, 3, 1, 2))
    for layer in layers(model, image):
        match layer.operation:
            case "scale":
                x = node("Mul", x, constant(np.float32(layer.factor)))
            case "conv":
                kernel = constant(np.transpose(params[layer.name]["kernel"], (3, 2, 0, 1)))
                bias = constant(params[layer.name]["bias"])
                x = activate(node("Conv", x, kernel, bias, auto_pad=padding))
            case "pool":
                x = node("MaxPool", x, kernel_shape=[layer.size] * 2, strides=[layer.size] * 2)
            case "flatten":
                x = node("Flatten", node("Transpose", x, perm=(0, 2, 3, 1)))
            case "dense":
                kernel, bias = (constant(params[layer.name][part]) for part in ("kernel", "bias"))
                if layer.activation is None:
                    node("Gemm", x, kernel, bias, output="logits")
                else:
                    x = activate(node("Gemm", x, kernel, bias))
            case "dropout":
                pass

    def tensor(name: str, *shape: int) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("n", *shape))

    graph = onnx.helper.make_graph(
        nodes, "cnnjax", [tensor("images", *image)], [tensor("logits", model.classes)], arrays
    )
    operators = [onnx.helper.make_opsetid("", OPSET)]
    exported = onnx.helper.make_model(graph, opset_imports=operators, ir_version=8, producer_name="cnnjax")
    onnx.checker.check_model(exported, full_check=True)
    return exported.SerializeToString(deterministic=True)


def run(content: bytes, images: Float32[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "n classes"]:
    """Run an ONNX model on images with onnxruntime.

    Raises:
        UserError: the extra is not installed.
    """
    session = _extra("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"images": images})[0])


def _extra(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"--format onnx needs an extra: pip install 'cnnjax[onnx]' ({error})") from error
