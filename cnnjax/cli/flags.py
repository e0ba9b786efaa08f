"""The flags of every ablation."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from cnnjax.cli.runner import DataDirectory, shown
from cnnjax.config import HParams
from cnnjax.data import identity
from cnnjax.devices.processes import ALONE, Processes
from cnnjax.experiment import OnNan, Plan, Protocol


@dataclass(frozen=True)
class Flags:
    """Base class of an ablation's flags; a subclass adds its own and may change the defaults."""

    seeds: int = 6
    """Paired seeds per arm."""
    first_seed: int = 0
    """First of these seeds; fresh ones confirm an earlier result."""
    looks: Annotated[tuple[int, ...], shown("INT ...", "one look, at --seeds")] = ()
    """Planned numbers of seeds, which --seeds reaches in turn; they share the 5% of false positives."""
    replan: bool = False
    """Allow another plan than the results in --out have; every conclusion then says so."""
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
    split_seed: int = 0
    """Seed of the split into training and validation images."""
    chunk: Annotated[int | None, shown("INT", "chosen for the backend")] = None
    """Networks to vmap at a time."""
    on_nan: OnNan = "stop"
    """If a loss is not finite: stop, or continue and count the network as diverged."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ALONE

    def protocol(self, optimizer: str = "adam", schedule: str = "constant") -> Protocol:
        """Return the protocol that all arms share."""
        return Protocol(
            epochs=self.epochs,
            seeds=self.seeds,
            first_seed=self.first_seed,
            batch_size=self.batch_size,
            dataset=identity(self.dataset),
            optimizer=optimizer,
            train_size=self.train_size,
            init_seed=self.init_seed,
            order_seed=self.order_seed,
            mask_seed=self.mask_seed,
            split_seed=self.split_seed,
            schedule=schedule,
        )

    def plan(
        self,
        hypothesis: str,
        family: tuple[str, ...],
        primary: str | None = None,
        margin: float | None = None,
        metric: str = "val_accuracy",
        reference: str | None = None,
    ) -> Plan:
        """Return the plan for these seeds; see `Plan` for the arguments."""
        seeds = max(self.looks, default=self.seeds)
        return Plan(
            hypothesis, metric, primary, family, margin, seeds, self.first_seed, self.looks, reference
        )

    def options(self, plan: Plan | None) -> dict[str, Any]:
        """Return the arguments of `experiment.run` that flags decide."""
        return {"chunk": self.chunk, "on_nan": self.on_nan, "plan": plan, "replan": self.replan}


@dataclass(frozen=True)
class OptimizerFlags(Flags):
    """Base class of the flags of an ablation whose optimizer may be chosen."""

    optimizer: str = "adam"
    """adam, rmsprop, sgd or adamw, as in Keras."""
    learning_rate: float = 1e-3
    """Step size of the optimizer."""
    schedule: str = "constant"
    """Learning rate over the run: constant; cosine: falls to 0; one-cycle: rises for 30%, then falls."""
    weight_decay: float = 0.0
    """adamw, sgd: each step shrinks all parameters by learning rate x weight decay."""
    momentum: float = 0.0
    """sgd: share of the last step that is added to the next, from 0 to below 1."""

    def hparams(self, dropout_rate: float) -> HParams:
        """Return the hyperparameters of an arm."""
        return HParams(self.learning_rate, dropout_rate, self.weight_decay, self.momentum)
