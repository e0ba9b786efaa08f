"""The versions and hardware behind a result."""

import os
import platform
from importlib import metadata
from typing import Any

import jax

from cnnjax import __version__
from cnnjax.dropout import MASK_SCHEME

_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(devices: int | None = None) -> dict[str, Any]:
    """Return the versions and hardware behind a result; `devices` is the number used, by default all."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {"cnnjax": __version__, **{name: metadata.version(name) for name in _VERSIONS}},
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": devices or jax.device_count(),
        },
        "host": {"system": platform.platform(), "cpus": os.cpu_count()},
        "mask_scheme": MASK_SCHEME,
    }
