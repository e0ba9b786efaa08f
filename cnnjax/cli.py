"""The commands: parse, call, print."""

import contextlib
import io
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from cnnjax.config import TrainConfig
from cnnjax.errors import ArgumentError, UserError

if TYPE_CHECKING:
    from cnnjax.models import ConvNet


@dataclass(frozen=True)
class Data:
    """Get a data set, check it and show what it holds."""

    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: Path | None = None
    """Directory with the four IDX files (plain or .gz) to take instead."""

    def __call__(self) -> None:
        """Print a table: split, examples, shape, dtype, class counts; then source and sums."""
        import numpy as np

        from cnnjax.data import load, split

        loaded = load(self.dataset, self.data_dir, announce=print)
        train, val = split(loaded.train)
        table = Table("split", "examples", "shape", "dtype", "examples of class 0, 1, ... 9")
        for name, part in (("train", train), ("validation", val), ("test", loaded.test)):
            shape = " x ".join(map(str, part.images.shape[1:]))
            counts = " ".join(map(str, np.bincount(part.labels, minlength=10)))
            table.add_row(name, f"{len(part.labels):,}", shape, str(part.images.dtype), counts)
        console = wide_console()
        console.print(table)
        console.print(f"source: {loaded.source}", markup=False)
        for file, digest in loaded.sha256.items():
            console.print(f"sha256 {digest}  {file}", markup=False)


@dataclass(frozen=True)
class Summary:
    """Print a network as Keras does: layer, output shape, parameters."""

    model: str = "keras-cnn"
    """Name of the network."""

    def __call__(self) -> None:
        """Print the table."""
        from cnnjax.summary import layers

        rows = layers(model_named(self.model))
        table = Table("Layer (type)", "Output Shape", "Param #", title=f'Model: "{self.model}"')
        table.columns[2].justify = "right"
        for row in rows:
            shape = ", ".join(["None", *map(str, row.shape)])
            table.add_row(f"{row.name} ({row.kind})", f"({shape})", f"{row.parameters:,}")
        total = sum(row.parameters for row in rows)
        console = wide_console()
        console.print(table)
        for label, number in (("Total", total), ("Trainable", total), ("Non-trainable", 0)):
            console.print(f"{label} params: {number:,}", highlight=False)


@dataclass(frozen=True)
class Train:
    """Train one network and leave a run directory; the defaults are the first tutorial's."""

    model: str = TrainConfig.model
    """Name of the network: keras-cnn or lenet-swish."""
    dataset: str = TrainConfig.dataset
    """mnist, fashion_mnist or kmnist."""
    data_dir: Path | None = None
    """Directory with the four IDX files (plain or .gz) to train on instead of a download."""
    dropout_rate: float = TrainConfig.dropout_rate
    """Probability that training drops a value, from 0 (never) to 1."""
    epochs: int = TrainConfig.epochs
    """Passes over the training images."""
    batch_size: int = TrainConfig.batch_size
    """Images a step."""
    learning_rate: float = TrainConfig.learning_rate
    """Step size of the optimizer."""
    seed: int = TrainConfig.seed
    """Root of every random number: initial weights, order of the images, dropout masks."""
    out: Path | None = None
    """Run directory; runs/<model>-seed<seed> unless given."""
    overwrite: bool = False
    """Replace the run that --out holds."""

    def __call__(self) -> None:
        """Train, with a line an epoch, and say where the files are."""
        from cnnjax.run import train

        model_named(self.model)
        config = TrainConfig(
            model=self.model,
            dataset=self.dataset,
            dropout_rate=self.dropout_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        out = self.out or Path("runs", f"{self.model}-seed{self.seed}")
        train(config, out, data_dir=self.data_dir, overwrite=self.overwrite)


COMMANDS: dict[str, Callable[..., Callable[[], None]]] = {
    "train": Train,
    "summary": Summary,
    "data": Data,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 success, 1 something outside the program is wrong, 2 a wrong argument, 130 Ctrl-C. A mistake is one
    line on stderr; `--debug` adds the traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        parse([argument for argument in given if argument != "--debug"])()
        return 0
    except KeyboardInterrupt:
        print("cnnjax: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if not isinstance(error, UserError):
            print(
                f"cnnjax: error: {type(error).__name__}: {_one_line(str(error))}; give --debug to see where",
                file=sys.stderr,
            )
            return 1
        print(f"cnnjax: error: {_one_line(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


def parse(arguments: Sequence[str]) -> Callable[[], None]:
    """The command that the arguments ask for.

    Raises:
        ArgumentError: the arguments are wrong; tyro's framed message, as one line.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="cnnjax",
                description="Convolution, pooling and dropout in JAX, with evidence.",
                args=arguments or ["--help"],
            )
    except SystemExit as end:
        if end.code:
            first = re.split("─{8,}", complaint.getvalue().split("╮", 1)[-1])[0]
            raise ArgumentError(_one_line(re.sub("[│╰╯]", " ", first))) from None
        raise


def model_named(name: str) -> "ConvNet":
    """The network of that name.

    Raises:
        ArgumentError: there is none.
    """
    from cnnjax.models import MODELS

    if name not in MODELS:
        raise ArgumentError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    return MODELS[name]


def wide_console() -> Console:
    """A console that breaks no line of a table when the output is a file."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def _one_line(text: str) -> str:
    return " ".join(text.split())
