"""Export a trained network to a file that runs without cnnjax: StableHLO (by jax.export) or ONNX.

    images f32[n, height, width, channels] in [0, 1], any n  ->  logits f32[n, classes]

Files compute in float32, also for runs that trained in bfloat16. Before a file is returned, its logits are
compared with those of the network.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from cnnjax.deploy import export_onnx
from cnnjax.deploy.predict import Trained
from cnnjax.errors import UserError, one_line
from cnnjax.models import ConvNet
from cnnjax.task import predict

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that a StableHLO file runs on."""
TOLERANCE = 1e-5
"""Largest allowed difference of the logits, relative to the largest logit or to 1, whichever is larger."""


class Format(NamedTuple):
    """How to write a network to a file, and how to run the file on images."""

    encode: Callable[[Trained], bytes]
    run: Callable[[bytes, np.ndarray], np.ndarray]


class Exported(NamedTuple):
    """The content of a file, and the largest difference of its logits, relative as in `TOLERANCE`."""

    content: bytes
    difference: float


def export(network: Trained, name: str) -> Exported:
    """Export a network in the format `name`, a key of `FORMATS`.

    Raises:
        UserError: a package is missing, or the file's logits differ from the network's.
    """
    encode, run = FORMATS[name]
    content = encode(network)
    compute, differences = jax.jit(_logits(network)), []
    for count in (1, 7):  # two batch sizes, because the file must accept any
        images = np.random.default_rng(count).random((count, *network.image_shape), np.float32)
        expected = np.asarray(compute(images))
        error = np.abs(run(content, images) - expected).max()
        differences.append(error / max(1.0, float(np.abs(expected).max())))
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:  # also if it is NaN
        raise UserError(
            f"the logits of the {name} file differ by {worst:.1e}: not written; try another --format"
        )
    return Exported(content, worst)


def stablehlo(network: Trained) -> bytes:
    """Serialize a network with `jax.export` for all `PLATFORMS`.

    It uses the layers of `reference=True`, because the fast ones are made for the CPU.
    """
    shape = jax.export.symbolic_shape(", ".join(map(str, ("n", *network.image_shape))))
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    compute = jax.jit(_logits(network, reference=True))
    try:
        with _no_locations():
            return bytes(jax.export.export(compute, platforms=PLATFORMS)(images).serialize())
    except Exception as error:
        raise UserError(
            f"{network.config.model} cannot be exported for any number of images: {one_line(error)}; in its "
            "code use x.shape[0] for len(x)"
        ) from error


def run_stablehlo(content: bytes, images: np.ndarray) -> np.ndarray:
    """Run a StableHLO file on images f32[n, height, width, channels]."""
    return np.asarray(jax.export.deserialize(bytearray(content)).call(images))


def onnx(network: Trained) -> bytes:
    """Serialize a network as an ONNX model from "images" to "logits"."""
    return export_onnx.encode(network.convnet, jax.device_get(network.params), network.image_shape)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {"stablehlo": Format(stablehlo, run_stablehlo), "onnx": Format(onnx, export_onnx.run)}
)
"""The formats by name, which is also the file suffix."""


@contextmanager
def _no_locations() -> Iterator[None]:
    """Keep the paths of the user's source files out of what JAX serializes."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _logits(network: Trained, reference: bool = False) -> Callable[[jax.Array], jax.Array]:
    """Return the function from images to logits that evaluation computes, in float32."""
    task = network.task._replace(preprocess=lambda images: images)
    if isinstance(task.model, ConvNet):
        task = task._replace(model=task.model.clone(reference=reference, dtype="float32"))
    return lambda images: predict(task, network.state, images, network.hparams)
