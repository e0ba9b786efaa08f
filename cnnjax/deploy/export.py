"""A trained network as one file that needs no cnnjax: StableHLO through jax.export, or ONNX.

    images f32[n, 28, 28, 1] in [0, 1], any n  ->  logits f32[n, classes]

What a file computes is compared with the network itself before it is handed over; both in float32, which the
parameters are in whatever a run computes in.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from cnnjax.deploy import export_onnx
from cnnjax.deploy.predict import Trained
from cnnjax.errors import UserError
from cnnjax.runs import programs

PLATFORMS = ("cpu", "cuda", "tpu")
"""What a StableHLO file runs on."""
TOLERANCE = 1e-5
"""How far logits may be apart, as a share of the largest, or of 1 where all are smaller."""
IMAGE = (28, 28, 1)


class Format(NamedTuple):
    """How a file is made of a network, and how it is run again."""

    encode: Callable[[Trained], bytes]
    run: Callable[[bytes, np.ndarray], np.ndarray]


class Exported(NamedTuple):
    """A file's content."""

    content: bytes
    difference: float  # the largest found between its logits and the network's, measured as `TOLERANCE` is


def export(network: Trained, name: str) -> Exported:
    """The network as a file in the format of that name, one of `FORMATS`.

    Raises:
        UserError: a package is missing, or the file would not compute what the network does.
    """
    encode, run = FORMATS[name]
    content = encode(network)
    compute, differences = jax.jit(_logits(network)), []
    for count in (1, 7):  # the number of images must not be part of the file
        images = np.random.default_rng(count).random((count, *IMAGE), np.float32)
        expected = np.asarray(compute(images))
        apart = np.abs(run(content, images) - expected).max()
        differences.append(apart / max(1.0, float(np.abs(expected).max())))
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:  # nor if it is NaN
        raise UserError(f"the {name} file would compute other logits, {worst:.1e} apart: it is not written")
    return Exported(content, worst)


def stablehlo(network: Trained) -> bytes:
    """Serialized by `jax.export` for all of `PLATFORMS`.

    The layers are those of `reference=True`, with the same parameters: the fast ones are made for the CPU.
    """
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 28, 28, 1"), jnp.float32)
    compute = jax.jit(_logits(network, reference=True))
    with _no_locations():
        return bytes(jax.export.export(compute, platforms=PLATFORMS)(images).serialize())


def run_stablehlo(content: bytes, images: np.ndarray) -> np.ndarray:
    """What a StableHLO file makes of f32[n, 28, 28, 1]."""
    return np.asarray(jax.export.deserialize(bytearray(content)).call(images))


def onnx(network: Trained) -> bytes:
    """An ONNX model from "images" to "logits"."""
    return export_onnx.encode(programs.network(network.config), jax.device_get(network.params), IMAGE)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {"stablehlo": Format(stablehlo, run_stablehlo), "onnx": Format(onnx, export_onnx.run)}
)
"""By name, which is also the suffix of a file."""


@contextmanager
def _no_locations() -> Iterator[None]:
    """Keep the paths of source files, which are the user's own, out of what JAX serializes."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _logits(network: Trained, reference: bool = False) -> Callable[[jax.Array], jax.Array]:
    """What evaluation computes of images."""
    model = programs.network(network.config).clone(reference=reference, dtype="float32")
    rate = network.config.dropout_rate

    def logits(images: jax.Array) -> jax.Array:
        found: Any = model.apply({"params": network.params}, images, train=False, dropout_rate=rate)
        return found

    return logits
