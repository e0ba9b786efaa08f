"""The configuration of one run, as config.json holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real

import numpy as np

from cnnjax.config import OPTIMIZER_NAMES, SCHEDULE_NAMES, HParams, require_read, require_seeds
from cnnjax.errors import ArgumentError
from cnnjax.files.misspelt import choose
from cnnjax.files.records import LATER, without_defaults

TRAIN_SPLITS = ("part", "all")
COMPUTE_DTYPES = ("float32", "bfloat16")
SEED_NAMES = ("seed", "init_seed", "order_seed", "mask_seed")
CUSTOM = "custom"
"""In place of an optimizer's name, for one that is a function."""
LARGEST = 3.4e38
"""Above it float32 has nothing finite."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the defaults are the first tutorial's protocol.

    Raises:
        ArgumentError: a value that no run can have.
    """

    model: str = "keras-cnn"
    dataset: str = "mnist"
    dropout_rate: float = 0.5
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    optimizer: str = "adam"
    train_split: str = "part"
    pixel_scale: float = 1.0
    compute_dtype: str = "float32"
    schedule: str = LATER["schedule"]
    weight_decay: float = LATER["weight_decay"]
    momentum: float = LATER["momentum"]
    init_seed: int | None = None  # default: `seed`, as for the next two
    order_seed: int | None = None
    mask_seed: int | None = None
    stop_early: int = LATER["stop_early"]  # epochs without a lower val_loss; 0: do not stop
    custom: Mapping[str, str] = field(default_factory=dict)  # text by part of the task, see runs.building

    def __post_init__(self) -> None:
        """Refuse values outside their domain, before any work is done."""
        for each in fields(self):
            name, value = each.name, getattr(self, each.name)
            kind = int if name in SEED_NAMES else type(each.default)
            if value is None or kind not in (int, float):
                continue
            if not isinstance(value, Integral if kind is int else Real):
                noun = "a whole number" if kind is int else "a number"
                raise ArgumentError(f"--{name.replace('_', '-')} {value!r} must be {noun}")
            if isinstance(value, np.generic):  # JSON does not know NumPy's numbers
                object.__setattr__(self, name, value.item())
        if not 0.0 <= self.dropout_rate <= 1.0:
            raise ArgumentError(f"--dropout-rate {self.dropout_rate} must lie between 0 and 1")
        if self.epochs < 1:
            raise ArgumentError(f"--epochs {self.epochs} must be at least 1")
        if self.batch_size < 1:
            raise ArgumentError(f"--batch-size {self.batch_size} must be at least 1")
        if self.stop_early < 0:
            raise ArgumentError(f"--stop-early {self.stop_early} must be at least 0")
        if not 0.0 < self.learning_rate < LARGEST:
            raise ArgumentError(f"--learning-rate {self.learning_rate} must lie between 0 and {LARGEST}")
        if not 0.0 < self.pixel_scale < LARGEST:
            raise ArgumentError(f"--pixel-scale {self.pixel_scale} must lie between 0 and {LARGEST}")
        own = "optimizer" in self.custom and self.optimizer == CUSTOM
        for flag, value, choices in (
            ("--optimizer", self.optimizer, (*OPTIMIZER_NAMES, *[CUSTOM] * own)),
            ("--schedule", self.schedule, SCHEDULE_NAMES),
            ("--train-split", self.train_split, TRAIN_SPLITS),
            ("--compute-dtype", self.compute_dtype, COMPUTE_DTYPES),
        ):
            if value not in choices:
                raise ArgumentError(f"{flag} {value} is unknown{choose(str(value), choices)}")
        if not 0.0 <= self.weight_decay < LARGEST:
            raise ArgumentError(f"--weight-decay {self.weight_decay} must lie between 0 and {LARGEST}")
        if not 0.0 <= self.momentum < 1.0:
            raise ArgumentError(f"--momentum {self.momentum} must be at least 0 and below 1")
        require_read(self.hparams, self.optimizer)
        require_seeds(**{name: getattr(self, name) for name in SEED_NAMES})

    @property
    def hparams(self) -> HParams:
        """The traced part of this configuration."""
        return HParams(**{name: getattr(self, name) for name in HParams._fields})

    @property
    def optimization(self) -> str:
        """Describe the optimizer, and what is not the default: "sgd 0.1, cosine schedule, momentum 0.9"."""
        later = without_defaults({name: getattr(self, name) for name in LATER if name != "custom"})
        texts = (
            f"{value} schedule" if name == "schedule" else f"{name.replace('_', ' ')} {value}"
            for name, value in later.items()
        )
        return ", ".join([f"{self.optimizer} {self.learning_rate:g}", *texts])

    @property
    def network(self) -> str:
        """Describe the network and, if it has one, its dropout rate: "keras-cnn, dropout rate 0.5"."""
        shown = self.dropout_rate or not self.custom
        return f"{self.model}, dropout rate {self.dropout_rate:g}" if shown else self.model
