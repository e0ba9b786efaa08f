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
    init_seed: Annotated[int | None, shown("INT", "each network's own seed")] = None
    """Seed of the initial weights of all networks."""
    order_seed: Annotated[int | None, shown("INT", "each network's own seed")] = None
    """Seed of the shuffling of all networks."""
    mask_seed: Annotated[int | None, shown("INT", "each network's own seed")] = None
    """Seed of the dropout masks of all networks."""
    chunk: Annotated[int | None, shown("INT", "chosen for the backend")] = None
    """Networks to vmap at a time."""
    on_nan: OnNan = "stop"
    """If a loss is not finite: stop, or continue and count the network as diverged."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ALONE

    @property
    def paired_seeds(self) -> str:
        """Describe the seeds in a caption: "6 paired seeds, init seed 3 in all"."""
        shared = {"init": self.init_seed, "order": self.order_seed, "mask": self.mask_seed}
        texts = (f", {name} seed {seed} in all" for name, seed in shared.items() if seed is not None)
        return f"{self.seeds} paired seeds{''.join(texts)}"

    def protocol(self, optimizer: str = "adam") -> Protocol:
        """Return the protocol that all arms share."""
        return Protocol(
            epochs=self.epochs,
            seeds=self.seeds,
            batch_size=self.batch_size,
            dataset=identity(self.dataset),
            optimizer=optimizer,
            train_size=self.train_size,
            init_seed=self.init_seed,
            order_seed=self.order_seed,
            mask_seed=self.mask_seed,
        )
