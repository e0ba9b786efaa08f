"""The versions and hardware behind a result; JAX is imported by what needs it, as files are read without."""

import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from importlib import metadata
from pathlib import Path
from textwrap import shorten
from typing import Any

from cnnjax import __version__
from cnnjax.errors import ArgumentError, UserError

SETTINGS = {
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_default_prng_impl": "threefry2x32",
    "jax_default_matmul_precision": None,
}
"""Settings of JAX that change the numbers of a run, and their defaults."""
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance(devices: int | None = None) -> dict[str, Any]:
    """Return the versions and hardware behind a result; `devices` is the number used, by default all."""
    import jax

    from cnnjax.dropout import MASK_SCHEME

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


def made() -> dict[str, Any]:
    """Return the entry of a summary.json that says when and where its numbers were written."""
    processor = platform.processor()
    with suppress(OSError, StopIteration):
        processor = next(re.finditer(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()))[1]
    return {"made": {"date": date.today().isoformat(), "processor": processor, **provenance()}}


def circumstances() -> dict[str, Any]:
    """Return, by name, what numbers depend on besides the configuration, and the processes of a run share."""
    import jax

    from cnnjax.dropout import MASK_SCHEME

    return {
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in _VERSIONS},
        "cnnjax": __version__,
        "mask scheme": MASK_SCHEME,
        "number of devices": jax.device_count(),
        "kind of device": jax.local_devices()[0].device_kind,
        **jax_settings(),
    }


def require_same(theirs: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise `UserError`, naming the first difference, unless this process has the settings of process 0."""
    for name in sorted(here.keys() | theirs.keys()):
        if here.get(name) != theirs.get(name):
            ours, leading = (shorten(str(each.get(name)), 80) for each in (here, theirs))
            raise UserError(
                f"{name} is {ours} in this process and {leading} in process 0; make them the same"
            )


def jax_settings() -> dict[str, Any]:
    """Return JAX's settings that change masks, orders or weights, where they are not JAX's own choice.

    Raises:
        ArgumentError: 64-bit numbers are enabled, which nothing here is made for.
    """
    import jax

    if jax.config.values["jax_enable_x64"]:
        raise ArgumentError("JAX computes in 64 bits, which changes all numbers here; unset JAX_ENABLE_X64")
    now = {name: getattr(jax.config, name) for name in SETTINGS}
    return {name: value for name, value in now.items() if value != SETTINGS[name]}
