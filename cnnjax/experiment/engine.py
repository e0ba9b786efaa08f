"""Run an ablation: train every arm with the same seeds, and keep the results on disk.

arms = [Arm(f"rate {rate:g}", ConvNet(), HParams(1e-3, rate)) for rate in (0.0, 0.5)]
protocol = Protocol(epochs=5, seeds=6)
results = run(arms, protocol, prepare(protocol), Path("results/mine"))
print(conclusion(summarise(results.final("val_accuracy"), results.arms), "accuracy", accuracy=True))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from cnnjax import files
from cnnjax.config import SCHEDULE_NAMES, HParams, require_read, require_seeds, without_defaults
from cnnjax.data import Dataset, load, split, training_split
from cnnjax.devices.layouts import cores
from cnnjax.devices.processes import fetch, silence_followers
from cnnjax.dropout import MASK_SCHEME
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.results import Predictions, Results, Store
from cnnjax.keys import StreamSeeds
from cnnjax.metrics import means
from cnnjax.models import ConvNet
from cnnjax.optimizers import make_optimizer
from cnnjax.population import PopulationProgram, default_chunk, make_population, stack
from cnnjax.task import Task
from cnnjax.train import Arrays, to_device

OnNan = Literal["stop", "continue"]
Report = Callable[[int, int], None]  # network-epochs done, total


@dataclass(frozen=True)
class Arm:
    """One condition of the ablation; arms with equal `model` and `optimizer` share a compiled program."""

    name: str
    model: ConvNet
    hparams: HParams
    optimizer: str | None = None  # default: the protocol's


@dataclass(frozen=True)
class Protocol:
    """The settings that all arms share; the defaults are the first tutorial's.

    Raises:
        ArgumentError: a value is out of range.
    """

    epochs: int = 20
    seeds: int = 6
    batch_size: int = 32
    dataset: str = "mnist"
    optimizer: str = "adam"
    train_size: int | None = None  # training images to use; default: all
    train_split: Literal["part", "all"] = "part"  # "all" trains on the validation images too
    schedule: str = "constant"
    # Every network then has the initial weights, order or masks of this seed, whatever its own seed.
    init_seed: int | None = None
    order_seed: int | None = None
    mask_seed: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("epochs", "seeds", "batch_size", "train_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(f"--{name.replace('_', '-')} {value} must be at least 1")
        if self.schedule not in SCHEDULE_NAMES:
            raise ArgumentError(f"the schedule {self.schedule} is none of {', '.join(SCHEDULE_NAMES)}")
        require_seeds(init_seed=self.init_seed, order_seed=self.order_seed, mask_seed=self.mask_seed)


@dataclass(frozen=True)
class Splits:
    """The data of an experiment, and the SHA-256 sums of its files."""

    train: Dataset
    val: Dataset
    test: Dataset
    sha256: dict[str, str]


def use_every_core() -> None:
    """Split the CPU into one device per core; call this before JAX's first computation.

    Networks train independently, so one core each is faster than all cores on one network. With several
    processes, only the leading one prints from here on.
    """
    jax.config.update("jax_num_cpu_devices", cores())
    silence_followers()


def prepare(
    protocol: Protocol, data_dir: Path | None = None, announce: Callable[[str], None] = print
) -> Splits:
    """Load the data and split them according to the protocol.

    Raises:
        ArgumentError: the training split is smaller than the protocol needs.
        UserError: the data are not available.
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
    """Train every arm with seeds 0, 1, ..., and update results.csv in `out` after every epoch.

    Results that `out` already holds are not recomputed: an interrupted experiment resumes after its last
    epoch, and one with more seeds computes only the new ones. The test images are used once, at the end.

    Args:
        arms: the first one is the reference.
        protocol: the settings they share.
        splits: the data.
        out: results directory, created if missing.
        chunk: number of networks to `vmap`; by default chosen for the backend.
        probes: further data sets to evaluate after the last epoch; a probe "turned" adds the columns
            turned_loss and turned_accuracy.
        on_nan: if the loss of a network is not finite, "stop" raises and keeps the epochs before, and
            "continue" goes on, to count the network as diverged in the statistics.
        report: called with the network-epochs done and their total.

    Raises:
        ArgumentError: `out` is a file, or holds results of another protocol, or an arm has a hyperparameter
            that its optimizer does not read.
        UserError: `out` cannot be written or is in use by another process, or a network diverged and
            `on_nan` is "stop".
    """
    for arm in arms:
        require_read(arm.hparams, arm.optimizer or protocol.optimizer, f"arm {arm.name}: ")
        if arm.model.classes != splits.train.classes:
            raise ArgumentError(
                f"the network of {arm.name} has {arm.model.classes} classes, and the data have "
                f"{splits.train.classes}; give the network classes={splits.train.classes}"
            )
    with files.claimed(out):
        store = Store(out, _identity(arms, protocol, splits))
        train, val, test = (to_device(part) for part in (splits.train, splits.val, splits.test))
        final_data = {"test": test} | {name: to_device(probe) for name, probe in (probes or {}).items()}
        width = jax.device_count() * (chunk or default_chunk(jax.default_backend()))
        names, seeds = [arm.name for arm in arms], range(protocol.seeds)
        cells = list(product(names, seeds, range(1, protocol.epochs + 1)))

        def report_progress() -> None:
            report(sum(cell in store.rows for cell in cells), len(cells))

        report_progress()
        for group in _groups(arms):
            steps = -(-len(splits.train.labels) // protocol.batch_size)
            name = group[0].optimizer or protocol.optimizer
            optimizer = make_optimizer(name, protocol.schedule, protocol.epochs * steps)
            program = make_population(
                Task(group[0].model, optimizer),
                train,
                val,
                batch_size=protocol.batch_size,
                chunk=chunk,
                own=StreamSeeds(protocol.init_seed, protocol.order_seed, protocol.mask_seed),
            )
            for block in _blocks(group, seeds, protocol.epochs, width, store):
                for _ in _train_block(program, block, width, protocol.epochs, final_data, store, on_nan):
                    report_progress()
        return store.results(names, list(seeds), protocol.epochs)


Member = tuple[Arm, int]  # an arm and a seed


def _groups(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Group arms that can share a compiled program."""
    groups: dict[tuple[ConvNet, str | None], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.model, arm.optimizer), []).append(arm)
    return list(groups.values())


def _blocks(
    group: Sequence[Arm], seeds: Sequence[int], epochs: int, width: int, store: Store
) -> Iterator[list[Member]]:
    """Yield the unfinished members, `width` at a time, all arms of a seed before the next seed.

    Members whose training was interrupted come first, as the block that they were.
    """
    pending = [(arm, seed) for seed in seeds for arm in group if (arm.name, seed, epochs) not in store.rows]
    interrupted = store.state_members()
    resumed = [(arm, seed) for arm, seed in pending if (arm.name, seed) in interrupted]
    if resumed and len(resumed) == len(interrupted):
        yield resumed
        pending = [member for member in pending if member not in resumed]
    for start in range(0, len(pending), width):
        yield pending[start : start + width]


def _train_block(
    program: PopulationProgram,
    block: list[Member],
    width: int,
    epochs: int,
    final_data: Mapping[str, Arrays],
    store: Store,
    on_nan: OnNan,
) -> Iterator[None]:
    """Train one block to the end, yielding after the rows of each epoch are on disk."""
    members = [(arm.name, seed) for arm, seed in block]
    # The program is compiled for `width` members, so copies of the last one fill a smaller block.
    padded = block + block[-1:] * (width - len(block))
    seeds = np.array([seed for _, seed in padded], np.uint32)
    population = program.start(seeds, stack([arm.hparams for arm, _ in padded]))
    population, done = store.restore(population, members)
    for epoch in range(done + 1, epochs + 1):
        population, sums = program.epoch(population, epoch - 1)
        diverged = ~np.all([np.isfinite(leaf) for leaf in jax.tree.leaves(fetch(sums))], axis=0)[: len(block)]
        if on_nan == "stop" and diverged.any():
            name, seed = members[int(np.argmax(diverged))]
            raise UserError(
                f"the loss of {name}, seed {seed}, is not finite in epoch {epoch}: training diverged; the "
                "epochs before are kept, and --on-nan continue counts it as diverged and goes on"
            )
        measured = {"": sums.optimized, "train_": sums.train, "val_": sums.val}
        if epoch == epochs:
            for name, data in final_data.items():
                measured[f"{name}_"], logits = program.evaluate(population, data)
                if name == "test":
                    for member, *prediction in zip(members, *Predictions.of(fetch(logits)), strict=False):
                        store.keep(*member, Predictions(*prediction))
        columns = {
            f"{prefix}{metric}": values
            for prefix, part in measured.items()
            for metric, values in means(fetch(part)).items()
        }
        for i, member in enumerate(members):
            store.rows[*member, epoch] = {
                # A network with NaN logits still predicts some class, so its accuracy is meaningless.
                column: float("nan") if diverged[i] else float(values[i])
                for column, values in columns.items()
            }
        store.write()
        store.save(population, members, epoch)
        yield


def _identity(arms: Sequence[Arm], protocol: Protocol, splits: Splits) -> dict[str, Any]:
    """Return the settings that all rows of a directory must share; arms and seeds may be added later."""
    shared = {name: value for name, value in asdict(protocol).items() if name != "seeds"}
    identities = {f"arm {arm.name}": arm_identity(arm) for arm in arms}
    return {**without_defaults(shared), "data": splits.sha256, "mask_scheme": MASK_SCHEME, **identities}


def arm_identity(arm: Arm) -> str:
    """Describe an arm by its values; protocol.json stores this text to recognise the arm.

    The text is an on-disk format: change it, and existing directories no longer resume. `dtype`,
    `weight_decay` and `momentum` are younger than the first of them and appear only if they are not float32
    and 0.
    """
    lines = ["# attributes"]
    for field in fields(arm.model):
        if field.name not in ("parent", "name", "dtype"):
            value = getattr(arm.model, field.name)
            lines.append(f"{field.name} = {getattr(value, '__name__', None) or repr(value)}")
    model = "".join(f"    {line}\n" for line in lines)
    dtype = "" if arm.model.dtype == "float32" else arm.model.dtype
    values = ", ".join(f"{name}={value!r}" for name, value in without_defaults(arm.hparams._asdict()).items())
    hparams = f"{type(arm.hparams).__name__}({values})"
    parts = f"{type(arm.model).__name__}(\n{model})", dtype, hparams, arm.optimizer
    return " ".join(filter(None, parts))
