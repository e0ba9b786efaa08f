"""The protocol of the benchmark's peers: arguments, arrays and JSON lines.

A peer is a long-lived process, so that only training is timed. It is started as

    python PEER.py --arrays FILE.npz --model keras-cnn --batch-size 32 --rate 0.5 [--validate]

and prints one JSON object per line. When ready:

    {"ready": true, "startup_seconds": ..., "version": {...}, "parameters": 197210}

Then it answers each line on standard input:

    epoch     {"seconds", "loss", "accuracy", "val_accuracy" (null without --validate), "peak_rss_mb"}
    evaluate  {"val_accuracy"}
    quit      (exits, as does the end of the input)

Nothing runs before the first `epoch`, so its seconds include compilation. An epoch visits every
training example once, in a new random order, in batches of which the last may be smaller; loss and
accuracy are means over the epoch during training. Linux only (it reads /proc).
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

PARAMETERS = {"keras-cnn": 197_210, "lenet-swish": 9_532, "mlp": 269_322, "resnet": 9_690}
EVALUATION_BATCH = 1_000


class Settings(NamedTuple):
    """The network (a key of PARAMETERS), its training, and the rate of its one dropout layer."""

    model: str
    batch_size: int
    rate: float
    validate: bool
    seed: int
    members: int = 1  # networks that cnnjax trains in one program; the other peers train one


class Arrays(NamedTuple):
    """The examples: images uint8[N,28,28,1], labels int32[N]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray


class EpochResult(NamedTuple):
    """Means over one epoch; `val_accuracy` is None without validation."""

    loss: float
    accuracy: float
    val_accuracy: float | None


class Peer(NamedTuple):
    """A peer ready to train; `train_epoch` returns when the device has finished."""

    version: dict[str, str]
    parameters: int
    train_epoch: Callable[[], EpochResult]
    evaluate: Callable[[], float]
    networks: int = 1  # trained by each `train_epoch`, whose time is divided among them


def unit_floats(images: np.ndarray) -> np.ndarray:
    """Return pixels as float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def serve(build: Callable[[Settings, Arrays], Peer], parameters: Mapping[str, int] = PARAMETERS) -> None:
    """Read the arguments, build the peer, and answer standard input until it ends.

    `parameters` are the networks that the peer has, and the number that each must have.
    """
    settings, arrays = _arguments(parameters)
    # Anything that a library prints goes to stderr, so that it does not break the JSON lines.
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = build(settings, arrays)
    if peer.parameters != parameters[settings.model]:
        raise ValueError(
            f"{settings.model} has {peer.parameters} parameters, not {parameters[settings.model]}"
        )

    def answer(**values: object) -> None:
        print(json.dumps(values), file=answers, flush=True)

    answer(
        ready=True,
        startup_seconds=_process_age(),
        version={**peer.version, "code": _code()},
        parameters=peer.parameters,
    )
    for line in sys.stdin:
        match line.strip():
            case "epoch":
                start = time.perf_counter()
                result = peer.train_epoch()
                seconds = (time.perf_counter() - start) / peer.networks
                answer(seconds=seconds, **result._asdict(), peak_rss_mb=_peak_rss_mb())
            case "evaluate":
                answer(val_accuracy=peer.evaluate())
            case "quit":
                return
            case unknown:
                raise ValueError(f"expected epoch, evaluate or quit, got {unknown!r}")


def _arguments(parameters: Mapping[str, int]) -> tuple[Settings, Arrays]:
    parser = argparse.ArgumentParser(description="One peer of experiments/benchmark_peers.py.")
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(parameters), required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", type=int, default=1)
    given = parser.parse_args()
    settings = Settings(given.model, given.batch_size, given.rate, given.validate, given.seed, given.members)
    with np.load(given.arrays) as stored:
        return settings, Arrays(*(stored[name] for name in Arrays._fields))


def _process_age() -> float:
    # Field 22 of /proc/self/stat; the command name before it may contain spaces.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _peak_rss_mb() -> float:
    # Not getrusage, whose maximum includes the memory of the parent process at the fork.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _code() -> str:
    """Return eight hex digits that identify the project sources loaded by this process."""
    here = Path(__file__).resolve().parent
    folders = {here, here.parents[1] / "cnnjax"}
    loaded = (Path(getattr(module, "__file__", None) or "") for module in list(sys.modules.values()))
    sources = sorted({path.resolve() for path in loaded if folders & set(path.resolve().parents)})
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
