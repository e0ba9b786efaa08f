"""Is cnnjax right on this accelerator, and how fast is it?

One command for a GPU or TPU that has JAX, Flax, optax, chex, orbax and the four IDX files of MNIST, and
nothing else: no network, no TFDS, no tyro. Parts, each within its own time, eight minutes in all:

- masks: equal to the CPU's, bit for bit.
- steps: three steps of both networks beside the CPU's, in the device's default precision and in full float32.
- repetition: the same seed twice, compiled anew, with and without XLA's flag for deterministic operations.
- speed: seconds per epoch (48,000 images) of both networks at batch 32, 128 and 512, beside plain Flax, and
  PyTorch where it is installed, in alternating rounds; medians of one launch, as eight minutes hold no more.
- populations: 1, 10, 100 and 1,000 networks in one program, `vmap` in chunks against `lax.map`.
- ceiling: the device's best rates, and the fraction of them that a training step reaches.
- bfloat16: the paired difference of validation accuracy to float32, 6 seeds.
- speedrun: see speedrun.py.

A part that fails is recorded, and the others go on. `python experiments/accelerator.py --data-dir DIR` writes
results/accelerator/summary.json and prints it as a table; --quick tries all parts on a CPU in two minutes.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a clone, cnnjax need not be installed

from accelerated import correctness, speed, training
from peers.protocol import Arrays

from cnnjax import files
from cnnjax.data import load, split, subset
from cnnjax.errors import ArgumentError, UserError, one_line

PEERS = Path(__file__).resolve().parent / "peers"
LIMIT = 420
"""Seconds after which no part begins."""


class Size(NamedTuple):
    """How much each part does."""

    images: int  # of training, at most
    batches: tuple[int, ...]
    members: tuple[int, ...]
    ceiling_batches: tuple[int, ...]
    rounds: int
    steps: int  # of the repetition
    seeds: int  # of bfloat16
    epochs: int  # of bfloat16
    runs: int  # of the speedrun


FULL = Size(60_000, (32, 128, 512), (1, 10, 100, 1000), (32, 512, 8192), 3, 300, 6, 5, 30)
QUICK = Size(2_000, (128,), (1, 2), (32,), 1, 10, 2, 1, 2)


def main() -> int:
    """Parse the arguments, run all parts and return the exit code: 1 if a part failed or is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="directory of the four IDX files")
    parser.add_argument("--dataset", default="mnist", help="mnist, fashion_mnist or kmnist")
    parser.add_argument("--out", type=Path, default=Path("results/accelerator"), help="output directory")
    parser.add_argument("--quick", action="store_true", help="small settings, for a CPU")
    given = parser.parse_args()
    sys.path.append(str(PEERS))  # the peers are scripts that import their neighbours
    try:
        return run(given.dataset, given.data_dir, given.out, QUICK if given.quick else FULL)
    except UserError as error:
        print(f"cnnjax: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


def run(dataset: str, data_dir: Path, out: Path, size: Size) -> int:
    """Run all parts, save after each, and print the table."""
    began, loaded = time.monotonic(), load(dataset, data_dir)
    with files.claimed(out):
        summary = files.made() | {"dataset": dataset, "sha256": loaded.sha256}
        device = summary["made"]["device"]
        print(f"{device['count']} x {device['kind']}", flush=True)
        todo = parts(loaded, size)
        for name, part in todo.items():
            print(name, flush=True)
            late = time.monotonic() - began > LIMIT
            summary[name] = {"left out": "no time"} if late else guarded(part)
            files.write_json(out / "summary.json", summary)
        found = {name: summary[name] for name in todo}
        for what, value in lines(found):
            print(f"{what}: {value}")
        print(f"summary.json in {out}")
    wrong = [what for what, value in flat(found) if correctness.HOLDS in what and not value]
    return int(bool(wrong) or any("failed" in part for part in found.values()))


def parts(loaded: Any, size: Size) -> Mapping[str, Callable[[], dict[str, Any]]]:
    """Return the parts by name; the times are limits in seconds, to which one setting may be added."""
    whole = subset(loaded.train, size.images)
    train, val = split(whole)
    arrays = Arrays(train.images, train.labels, val.images, val.labels)
    return {
        "masks": correctness.masks,
        "steps": partial(correctness.three_steps, train),
        "repetition": partial(correctness.repetition, train, size.steps),
        "speed": partial(speed.epochs, arrays, size.batches, size.rounds, 120),
        "populations": partial(speed.populations, size.members, size.rounds, 90),
        "ceiling": partial(speed.ceiling, size.ceiling_batches, size.rounds, 40),
        "bfloat16": partial(training.bfloat16, train, val, size.seeds, size.epochs),
        "speedrun": partial(training.speedrun, whole, loaded.test, range(size.runs)),
    }


def guarded(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a part; of one that fails, return the error instead."""
    began = time.monotonic()
    try:
        found = part()
    except Exception as error:  # whatever it is, the other parts go on
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {one_line(error)}"}
    return found | {"seconds in all": round(time.monotonic() - began, 1)}


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a tree of mappings holds, each with its path."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for name, branch in tree.items():
        yield from flat(branch, f"{path} / {name}" if path else name)


def lines(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table: a path and a value in four digits."""
    for path, value in flat(tree):
        yield path, f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
