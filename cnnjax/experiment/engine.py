"""Ablations: arms that differ in one thing, seeds that pair them, and what can be said at the end.

arms = [Arm(f"rate {rate:g}", ConvNet(), HParams(1e-3, rate)) for rate in (0.0, 0.5)]
protocol = Protocol(epochs=5, seeds=6)
results = run(arms, protocol, prepare(protocol), Path("results/mine"))
print(conclusion(summarise(results.final("val_accuracy"), results.arms), "accuracy", accuracy=True))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from cnnjax import files
from cnnjax.config import HParams
from cnnjax.data import Dataset, load, split, training_split
from cnnjax.devices.layouts import cores
from cnnjax.devices.processes import fetch, silence_followers
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.results import Predictions, Results, Store
from cnnjax.metrics import means
from cnnjax.models import ConvNet
from cnnjax.optimizers import OPTIMIZERS
from cnnjax.population import PopulationProgram, default_chunk, make_population, stack
from cnnjax.task import Task
from cnnjax.train import Arrays, to_device

OnNan = Literal["stop", "continue"]
Report = Callable[[int, int], None]  # member-epochs done, and in all


@dataclass(frozen=True)
class Arm:
    """One condition. Arms with equal `model` and `optimizer` share a compiled program."""

    name: str
    model: ConvNet
    hparams: HParams
    optimizer: str | None = None  # the protocol's unless given


@dataclass(frozen=True)
class Protocol:
    """What all arms share; the defaults are the first tutorial's.

    Raises:
        ArgumentError: a value that no experiment can have.
    """

    epochs: int = 20
    seeds: int = 6
    batch_size: int = 32
    dataset: str = "mnist"
    optimizer: str = "adam"
    train_size: int | None = None  # images of the training split to use; all unless given
    train_split: Literal["part", "all"] = "part"  # "all" trains on the validation images too

    def __post_init__(self) -> None:
        """Refuse values outside their domain."""
        for name in ("epochs", "seeds", "batch_size", "train_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(f"--{name.replace('_', '-')} {value} must be at least 1")


@dataclass(frozen=True)
class Splits:
    """The data of an experiment."""

    train: Dataset
    val: Dataset
    test: Dataset
    sha256: dict[str, str]


def use_every_core() -> None:
    """Make a CPU as many devices as it has cores; to be called before JAX's first computation.

    Members of a population are independent: a core each beats all cores on one. Of several processes, the one
    that leads prints from here on.
    """
    jax.config.update("jax_num_cpu_devices", cores())
    silence_followers()


def prepare(
    protocol: Protocol, data_dir: Path | None = None, announce: Callable[[str], None] = print
) -> Splits:
    """Load and split the data as the protocol says.

    Raises:
        ArgumentError: the training split is smaller than the protocol needs.
        UserError: the data cannot be had.
    """
    loaded = load(protocol.dataset, data_dir, announce=announce)
    train, val = training_split(loaded, protocol.train_split)
    available = len(train.labels)
    wanted = protocol.train_size or available
    if wanted > available:
        raise ArgumentError(f"--train-size {wanted} is more than the training split has ({available})")
    if protocol.batch_size > wanted:
        raise ArgumentError(f"--batch-size {protocol.batch_size} is larger than the training set ({wanted})")
    if wanted < available:
        train, _ = split(train, wanted / available)
    return Splits(train, val, loaded.test, loaded.sha256)


def run(
    arms: Sequence[Arm],
    protocol: Protocol,
    splits: Splits,
    out: Path,
    *,
    chunk: int | None = None,
    probes: Mapping[str, Dataset] | None = None,
    on_nan: OnNan = "stop",
    report: Report = lambda done, total: None,
) -> Results:
    """Train every arm with seeds 0, 1, ... and keep results.csv in `out` up to date, epoch by epoch.

    What `out` holds already is not computed again: an interrupted experiment goes on after its last epoch,
    and one asked for with more seeds computes the new ones. The test images are looked at once, at the end.

    Args:
        arms: the first one is the reference.
        protocol: what they share.
        splits: the data.
        out: made if missing.
        chunk: networks to `vmap` at a time; chosen for the backend unless given.
        probes: further images that every network sees after its last epoch; probe "turned" becomes the
            columns turned_loss and turned_accuracy.
        on_nan: what happens when the loss of a network is not finite. "stop" keeps what is done up to the
            epoch before; "continue" trains the others, and the statistics count it as diverged.
        report: told the member-epochs done, and all.

    Raises:
        ArgumentError: `out` is a file, or holds results of another protocol.
        UserError: `out` cannot be written, or another process is at work there; or a network diverged and
            `on_nan` is "stop".
    """
    with files.claimed(out):
        store = Store(out, _identity(arms, protocol, splits))
        train, val, test = (to_device(part) for part in (splits.train, splits.val, splits.test))
        last = {"test": test} | {name: to_device(probe) for name, probe in (probes or {}).items()}
        width = jax.device_count() * (chunk or default_chunk(jax.default_backend()))
        seeds = range(protocol.seeds)
        total = len(arms) * len(seeds) * protocol.epochs

        def tell() -> None:
            cells = product((arm.name for arm in arms), seeds, range(1, protocol.epochs + 1))
            report(sum(cell in store.rows for cell in cells), total)

        tell()
        for group in _groups(arms):
            program = make_population(
                Task(group[0].model, OPTIMIZERS[group[0].optimizer or protocol.optimizer]),
                train,
                val,
                batch_size=protocol.batch_size,
                chunk=chunk,
            )
            for block in _blocks(group, seeds, protocol.epochs, width, store):
                for _ in _train_block(program, block, width, protocol.epochs, last, store, on_nan):
                    tell()
        return store.results([arm.name for arm in arms], list(seeds), protocol.epochs)


Member = tuple[Arm, int]  # with its seed


def _groups(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Arms that can share a program."""
    groups: dict[tuple[ConvNet, str | None], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.model, arm.optimizer), []).append(arm)
    return list(groups.values())


def _blocks(
    group: Sequence[Arm], seeds: Sequence[int], epochs: int, width: int, store: Store
) -> Iterator[list[Member]]:
    """The unfinished members, `width` at a time; all arms of a seed before the next seed."""
    pending = [(arm, s) for s in seeds for arm in group if (arm.name, s, epochs) not in store.rows]
    begun = {(name, seed) for name, seed in store.state_members()}
    first = [member for member in pending if (member[0].name, member[1]) in begun]
    if first and len(first) == len(begun):
        yield first
        pending = [member for member in pending if member not in first]
    for start in range(0, len(pending), width):
        yield pending[start : start + width]


def _train_block(
    program: PopulationProgram,
    block: list[Member],
    width: int,
    epochs: int,
    last: Mapping[str, Arrays],
    store: Store,
    on_nan: OnNan,
) -> Iterator[None]:
    """Train one block to the end, yielding when the rows of an epoch are on disk."""
    # Every block has the width that the program is compiled for: the last member stands in for none.
    padded = block + block[-1:] * (width - len(block))
    seeds = np.array([seed for _, seed in padded], np.uint32)
    population = program.start(seeds, stack([arm.hparams for arm, _ in padded]))
    population, done = store.restore(population, [(arm.name, seed) for arm, seed in block])
    for number in range(done, epochs):
        population, sums = program.epoch(population, number)
        diverged = ~_finite((sums.optimized, sums.train, sums.val))[: len(block)]
        if on_nan == "stop" and diverged.any():
            arm, seed = block[int(np.argmax(diverged))]
            raise UserError(
                f"the loss of {arm.name}, seed {seed}, is not finite in epoch {number + 1}: training "
                "diverged, what was done before is kept; --on-nan continue goes on and counts it as diverged"
            )
        measured = {"": sums.optimized, "train_": sums.train, "val_": sums.val}
        if number + 1 == epochs:
            for name, data in last.items():
                measured[f"{name}_"], logits = program.evaluate(population, data)
                if name == "test":
                    said = Predictions.of(fetch(logits))
                    for i, (arm, seed) in enumerate(block):
                        store.keep(arm.name, seed, Predictions(said.labels[i], said.probability[i]))
        fetched = {prefix: means(fetch(part)) for prefix, part in measured.items()}
        for i, (arm, seed) in enumerate(block):
            store.rows[arm.name, seed, number + 1] = {
                # A network whose logits are NaN still predicts some class: its accuracy means nothing.
                f"{prefix}{metric}": float("nan") if diverged[i] else float(values[i])
                for prefix, part in fetched.items()
                for metric, values in part.items()
            }
        store.write()
        store.save(population, [(arm.name, seed) for arm, seed in block], number + 1)
        yield


def _finite(sums: Any) -> np.ndarray:
    """bool[members]: whether all these sums of a member are."""
    return np.all([np.isfinite(leaf) for leaf in jax.tree.leaves(fetch(sums))], axis=0)


def _identity(arms: Sequence[Arm], protocol: Protocol, splits: Splits) -> dict[str, Any]:
    """What rows of one directory must have in common; arms and seeds may be added."""
    shared = {name: value for name, value in asdict(protocol).items() if name != "seeds"}
    return {
        **shared,
        "data": splits.sha256,
        "mask_scheme": MASK_SCHEME,
        **{
            f"arm {arm.name}": " ".join(
                filter(None, (repr(arm.model), _dtype(arm.model), repr(arm.hparams), arm.optimizer))
            )
            for arm in arms
        },
    }


def _dtype(model: ConvNet) -> str:
    return "" if model.dtype == "float32" else model.dtype
