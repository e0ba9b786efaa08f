"""What the benchmarks start: each peer's script, environment and settings, and the machine they run on."""

import os
import platform
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax.errors import UserError

from .protocol import Settings
from .results import BASE
from .worker import Launch

PEERS = Path(__file__).resolve().parent
FULL = 48_000
"""Training images for which the entries' seconds are."""


class Entry(NamedTuple):
    """How to run a peer, and roughly what it takes on two cores (only to estimate the total time)."""

    script: str
    environment: str  # directory of its environment; "" for the running one
    variables: dict[str, str]
    start: float  # seconds to start and compile
    step: float  # milliseconds a step, for any batch size
    images: float  # seconds an epoch of `FULL` images, for any batch size


def entries(peers: Collection[str]) -> dict[str, Entry]:
    """Return the entries of these peers and of cnnjax, by name."""
    every = {
        BASE: Entry("cnnjax_peer.py", "", {"PYTHONPATH": str(PEERS.parents[1])}, 7, 0.7, 0.9),
        "flax": Entry("flax_peer.py", "flax", {}, 6, 1.3, 3.0),
        "keras-tensorflow": Entry("keras_peer.py", "tf", {"KERAS_BACKEND": "tensorflow"}, 9, 2.3, 1.8),
        "keras-jax": Entry("keras_peer.py", "keras-jax", {"KERAS_BACKEND": "jax"}, 7, 1.7, 3.0),
    }
    for threads in sorted({1, cores()}):
        variables = {"OMP_NUM_THREADS": str(threads)}
        every[f"torch-{threads}"] = Entry("torch_peer.py", "torch", variables, 5, 2.0, 2.0)
    return {name: entry for name, entry in every.items() if peer_of(name) in {BASE, *peers}}


def peer_of(entry: str) -> str:
    """Return the peer of an entry; PyTorch has one entry per number of threads."""
    return "torch" if entry.startswith("torch-") else entry


def launches(chosen: Mapping[str, Entry], environments: Path) -> dict[str, Launch]:
    """Return the commands of these entries.

    Raises:
        UserError: an environment is missing.
    """
    return {
        name: Launch(
            [str(interpreter(environments, entry.environment)), str(PEERS / entry.script)], entry.variables
        )
        for name, entry in chosen.items()
    }


def interpreter(environments: Path, environment: str) -> Path:
    """Return the Python of an environment, or the running one for "".

    Raises:
        UserError: it is missing.
    """
    if not environment:
        return Path(sys.executable)
    # Not resolved, because Python finds its environment by the path of the link.
    python = environments.absolute() / environment / "bin/python"
    if not python.exists():
        raise UserError(
            f"{environments / environment} is missing; create it with `make .peers/{environment}/.ready`, or "
            "point --environments to where it is"
        )
    return python


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """Describe the machine."""
    name = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
    cpu = name.strip(" \t:") or platform.machine()
    return {"cpu": cpu, "cores": cores(), "system": platform.platform()}


def expected(setting: Settings, chosen: Mapping[str, Entry], rounds: int, images: int) -> float:
    """Estimate the seconds that a setting takes."""
    epochs, steps = rounds + 1, images / setting.batch_size
    return sum(e.start + epochs * (e.images * images / FULL + steps * e.step / 1000) for e in chosen.values())
