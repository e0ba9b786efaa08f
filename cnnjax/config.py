"""Hyperparameters, and the names and seeds that runs and experiments share."""

from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from cnnjax.errors import ArgumentError

OPTIMIZER_NAMES = ("adam", "rmsprop", "sgd", "adamw")
SCHEDULE_NAMES = ("constant", "cosine", "one-cycle")
READ_BY = MappingProxyType({"weight_decay": ("adamw", "sgd"), "momentum": ("sgd",)})
"""The optimizers that read a hyperparameter; `learning_rate` is read by all."""


class HParams(NamedTuple):
    """Hyperparameters that are traced: float32 scalars, or arrays with the leading axis of a population."""

    learning_rate: jax.Array | float = 1e-3
    dropout_rate: jax.Array | float = 0.5
    weight_decay: jax.Array | float = 0.0
    momentum: jax.Array | float = 0.0


def require_read(hparams: Any, optimizer: str, subject: str = "") -> None:
    """Raise `ArgumentError` if a value in `HParams` is set that this optimizer does not read.

    A NamedTuple of the user's own is not checked, because a model may read what the optimizer does not.
    """
    for name, optimizers in READ_BY.items() if isinstance(hparams, HParams) else ():
        if (value := getattr(hparams, name)) and optimizer not in optimizers:
            raise ArgumentError(
                f"{subject}--{name.replace('_', '-')} {value} does nothing with --optimizer {optimizer}; "
                f"omit it, or use --optimizer {' or '.join(optimizers)}"
            )


def require_seeds(**seeds: int | None) -> None:
    """Raise `ArgumentError` if a seed, given by the name of its flag, is not a 32-bit number."""
    for name, seed in seeds.items():
        if seed is not None and not 0 <= seed < 2**32:
            raise ArgumentError(f"--{name.replace('_', '-')} {seed} must lie between 0 and 4294967295")
