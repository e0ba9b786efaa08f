"""The flags of every ablation."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cnnjax.cli.runner import DataDirectory, shown
from cnnjax.data import identity
from cnnjax.devices.processes import ALONE, Processes
from cnnjax.experiment import OnNan, Protocol


@dataclass(frozen=True)
class Flags:
    """Base class of an ablation's flags; a subclass adds its own and may change the defaults."""

    seeds: int = 6
    """Paired seeds per arm."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 32
    """Images per step."""
    train_size: Annotated[int | None, shown("INT", "the whole training split")] = None
    """Number of training images."""
    dataset: str = "mnist"
    """mnist, fashion_mnist, kmnist, FILE.npz, FILE.csv, a directory of images or tfds:NAME."""
    data_dir: DataDirectory = None
    chunk: Annotated[int | None, shown("INT", "chosen for the backend")] = None
    """Networks to vmap at a time."""
    on_nan: OnNan = "stop"
    """If a loss is not finite: stop, or continue and count the network as diverged."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ALONE

    def protocol(self, optimizer: str = "adam") -> Protocol:
        """Return the protocol that all arms share."""
        return Protocol(
            epochs=self.epochs,
            seeds=self.seeds,
            batch_size=self.batch_size,
            dataset=identity(self.dataset),
            optimizer=optimizer,
            train_size=self.train_size,
        )
