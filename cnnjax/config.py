"""What a run is: the static part as a frozen dataclass, the traced part as a NamedTuple."""

from dataclasses import dataclass
from typing import NamedTuple

import jax

from cnnjax.errors import ArgumentError

OPTIMIZER_NAMES = ("adam", "rmsprop")
TRAIN_SPLITS = ("part", "all")
COMPUTE_DTYPES = ("float32", "bfloat16")
LARGEST = 3.4e38
"""Above it float32 has nothing finite."""


class HParams(NamedTuple):
    """Hyperparameters that enter the compiled program as arrays, so that a population can vary them.

    Each is a float32 scalar, or carries the population's leading axis.
    """

    learning_rate: jax.Array | float = 1e-3
    dropout_rate: jax.Array | float = 0.5


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

    def __post_init__(self) -> None:
        """Refuse values outside their domain, before any work is done."""
        if not 0.0 <= self.dropout_rate <= 1.0:
            raise ArgumentError(f"--dropout-rate {self.dropout_rate} must lie between 0 and 1")
        if self.epochs < 1:
            raise ArgumentError(f"--epochs {self.epochs} must be at least 1")
        if self.batch_size < 1:
            raise ArgumentError(f"--batch-size {self.batch_size} must be at least 1")
        if not 0.0 < self.learning_rate < LARGEST:
            raise ArgumentError(f"--learning-rate {self.learning_rate} must lie between 0 and {LARGEST}")
        if not 0.0 < self.pixel_scale < LARGEST:
            raise ArgumentError(f"--pixel-scale {self.pixel_scale} must lie between 0 and {LARGEST}")
        for flag, value, choices in (
            ("--optimizer", self.optimizer, OPTIMIZER_NAMES),
            ("--train-split", self.train_split, TRAIN_SPLITS),
            ("--compute-dtype", self.compute_dtype, COMPUTE_DTYPES),
        ):
            if value not in choices:
                raise ArgumentError(f"{flag} {value} is none of {', '.join(choices)}")
        if not 0 <= self.seed < 2**32:
            raise ArgumentError(f"--seed {self.seed} must lie between 0 and 4294967295")

    @property
    def hparams(self) -> HParams:
        """The traced part of this configuration."""
        return HParams(learning_rate=self.learning_rate, dropout_rate=self.dropout_rate)
