"""The flags that every experiment has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cnnjax.devices.processes import ALONE, Processes
from cnnjax.experiment import OnNan, Protocol


@dataclass(frozen=True)
class Flags:
    """What every experiment can be asked; each adds its own, and its own defaults."""

    seeds: int = 6
    """Paired seeds of every arm."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 32
    """Images a step."""
    train_size: int | None = None
    """Training images; the whole training split unless given."""
    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: Path | None = None
    """Directory with the four IDX files (plain or .gz) to use instead of a download."""
    chunk: int | None = None
    """Networks to vmap at a time; chosen for the backend unless given."""
    on_nan: OnNan = "stop"
    """What to do when a network's loss is not finite: stop, or continue and count it as diverged."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ALONE

    def protocol(self, optimizer: str = "adam") -> Protocol:
        """What the arms share."""
        return Protocol(
            epochs=self.epochs,
            seeds=self.seeds,
            batch_size=self.batch_size,
            dataset=self.dataset,
            optimizer=optimizer,
            train_size=self.train_size,
        )
