"""What an ablation varies, and what its arms share."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import flax.linen as nn
import jax

from cnnjax.config import OPTIMIZER_NAMES, SCHEDULE_NAMES, require_seeds
from cnnjax.data import Dataset, Loaded, load, require_batch, require_dataset, split, training_split
from cnnjax.devices.layouts import cores
from cnnjax.devices.processes import silence_followers
from cnnjax.errors import ArgumentError
from cnnjax.files.misspelt import choose
from cnnjax.task import Augment, Loss, MakeOptimizer, Preprocess


@dataclass(frozen=True)
class Arm:
    """One condition of the ablation; arms that differ in `hparams` alone share a compiled program."""

    name: str
    model: nn.Module
    hparams: Any  # `HParams`, or a NamedTuple of the user's own
    optimizer: str | MakeOptimizer | None = None  # a name, or hparams -> optax; default: the protocol's
    loss: Loss | None = None  # None, here and below: the default of `cnnjax.task.Task`
    preprocess: Preprocess | None = None
    augment: Augment | None = None


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
    first_seed: int = 0  # the seeds are this one and those that follow
    split_seed: int = 0  # of the split into training and validation images, which all networks share

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("epochs", "seeds", "batch_size", "train_size"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ArgumentError(f"--{name.replace('_', '-')} {value} must be a whole number, at least 1")
        splits = get_args(Protocol.__annotations__["train_split"])
        for name, choices in (
            ("optimizer", OPTIMIZER_NAMES),
            ("schedule", SCHEDULE_NAMES),
            ("train_split", splits),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ArgumentError(f"--{name.replace('_', '-')} {value} is unknown{choose(value, choices)}")
        if not isinstance(self.first_seed, int):
            raise ArgumentError(f"--first-seed {self.first_seed} must be a whole number")
        own = {"init_seed": self.init_seed, "order_seed": self.order_seed, "mask_seed": self.mask_seed}
        require_seeds(first_seed=self.first_seed, split_seed=self.split_seed, **own)
        if self.split_seed and self.train_split == "all":
            raise ArgumentError(
                f"--split-seed {self.split_seed} does nothing with --train-split all; omit it"
            )
        if self.first_seed + self.seeds > 2**32:
            raise ArgumentError(f"--first-seed {self.first_seed} leaves no room for {self.seeds} seeds")

    @property
    def numbers(self) -> range:
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)


@dataclass(frozen=True)
class Splits:
    """The data of an experiment, and the SHA-256 sums of its files."""

    train: Dataset
    val: Dataset
    test: Dataset
    sha256: dict[str, str]


def use_every_core() -> None:
    """Split the CPU into one device per core, if JAX has not computed anything yet.

    Networks train independently, so one core each is faster than all cores on one network. With several
    processes, only the leading one prints from here on.
    """
    with suppress(RuntimeError):  # already initialised: the devices stay as they are
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
    return divide(load(protocol.dataset, data_dir, announce=announce), protocol)


def divide(loaded: Loaded, protocol: Protocol) -> Splits:
    """Split data that are in memory; see `prepare`."""
    require_dataset(loaded.train, "training")
    require_dataset(loaded.test, "test")
    train, val = training_split(loaded, protocol.train_split, seed=protocol.split_seed)
    available = len(train.labels)
    wanted = protocol.train_size or available
    if wanted > available:
        raise ArgumentError(
            f"--train-size {wanted} is more than the training split has ({available}); give at most "
            "that, with --quick as well"
        )
    require_batch(protocol.batch_size, wanted)
    if wanted < available:
        train, _ = split(train, wanted / available, seed=protocol.split_seed)
    return Splits(train, val, loaded.test, loaded.sha256)
