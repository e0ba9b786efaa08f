"""The commands: parse, call, print."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from cnnjax.cli import runner
from cnnjax.cli.evaluate import Evaluate
from cnnjax.cli.export import Export
from cnnjax.cli.predict import Predict
from cnnjax.cli.report import Report
from cnnjax.config import TrainConfig
from cnnjax.devices.processes import ALONE, Processes, leads


@dataclass(frozen=True)
class Data:
    """Get a data set, check it and show what it holds.

    Example: cnnjax data --dataset fashion_mnist
    """

    dataset: str = "mnist"
    """mnist, fashion_mnist or kmnist."""
    data_dir: Path | None = None
    """Directory with the four IDX files (plain or .gz) to take instead."""

    def __call__(self) -> None:
        """Print a table: split, examples, shape, dtype, class counts; then source and sums."""
        import numpy as np

        from cnnjax.data import load, split
        from cnnjax.report import console

        loaded = load(self.dataset, self.data_dir, announce=print)
        train, val = split(loaded.train)
        table = Table("split", "examples", "shape", "dtype", "examples of class 0, 1, ... 9")
        for name, part in (("train", train), ("validation", val), ("test", loaded.test)):
            shape = " x ".join(map(str, part.images.shape[1:]))
            counts = " ".join(map(str, np.bincount(part.labels, minlength=10)))
            table.add_row(name, f"{len(part.labels):,}", shape, str(part.images.dtype), counts)
        screen = console()
        screen.print(table)
        screen.print(f"source: {loaded.source}", markup=False)
        for file, digest in loaded.sha256.items():
            screen.print(f"sha256 {digest}  {file}", markup=False)


@dataclass(frozen=True)
class Summary:
    """Print a network as Keras does: layer, output shape, parameters.

    Example: cnnjax summary --model lenet-swish
    """

    model: str = "keras-cnn"
    """Name of the network."""

    def __call__(self) -> None:
        """Print the table."""
        from cnnjax.deploy.layers import layers
        from cnnjax.models import model_named
        from cnnjax.report import console

        rows = layers(model_named(self.model))
        table = Table("Layer (type)", "Output Shape", "Param #", title=f'Model: "{self.model}"')
        table.columns[2].justify = "right"
        for row in rows:
            shape = ", ".join(["None", *map(str, row.shape)])
            table.add_row(f"{row.name} ({row.kind})", f"({shape})", f"{row.parameters:,}")
        total = sum(row.parameters for row in rows)
        screen = console()
        screen.print(table)
        for label, number in (("Total", total), ("Trainable", total), ("Non-trainable", 0)):
            screen.print(f"{label} params: {number:,}", highlight=False)


_DEVICES = "(default: all there are; of a CPU, 1)"


def _default(name: str) -> object:
    """How --help shows a flag whose default is `TrainConfig`'s, or with --resume the run's own."""
    value = getattr(TrainConfig, name)
    return tyro.conf.arg(metavar=type(value).__name__.upper(), help_behavior_hint=f"(default: {value})")


@dataclass(frozen=True)
class Train:
    """Train one network and leave a run directory; the defaults are the first tutorial's.

    Every epoch is a line on the screen and a checkpoint on the disk: what is interrupted goes on with
    --resume, bit for bit. The same flags give the same run.

    Example: cnnjax train --dropout-rate 0 --epochs 5 --out runs/no-dropout
    """

    model: Annotated[str | None, _default("model")] = None
    """Name of the network: keras-cnn or lenet-swish."""
    dataset: Annotated[str | None, _default("dataset")] = None
    """mnist, fashion_mnist or kmnist."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Directory with the four IDX files (plain or .gz) to train on instead of a download."""
    dropout_rate: Annotated[float | None, _default("dropout_rate")] = None
    """Probability that training drops a value, from 0 (never) to 1."""
    epochs: Annotated[int | None, _default("epochs")] = None
    """Passes over the training images."""
    batch_size: Annotated[int | None, _default("batch_size")] = None
    """Images a step."""
    learning_rate: Annotated[float | None, _default("learning_rate")] = None
    """Step size of the optimizer."""
    seed: Annotated[int | None, _default("seed")] = None
    """Root of every random number: initial weights, order of the images, dropout masks."""
    optimizer: Annotated[str | None, _default("optimizer")] = None
    """adam or rmsprop, with Keras's formulas and defaults."""
    train_split: Annotated[str | None, _default("train_split")] = None
    """part: four fifths of the training images, validated on the rest; all: every one, validated on the test
    images."""
    pixel_scale: Annotated[float | None, _default("pixel_scale")] = None
    """Factor on the pixels, which are in [0, 1]; 255 trains on raw ones, as the second tutorial does."""
    compute_dtype: Annotated[str | None, _default("compute_dtype")] = None
    """float32 or bfloat16, of activations and gradients; parameters and optimizer keep to float32."""
    devices: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_DEVICES)] = None
    """Devices, of every process, that each batch is divided over; a CPU is as many as are asked for."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the division is compiled; the result is the same."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/<model>-seed<seed>)"),
    ] = None
    """Run directory."""
    resume: bool = False
    """Go on with the run that --out holds; flags that are not given are as it was started."""
    overwrite: bool = False
    """Replace the run that --out holds."""
    checkpoint_every: int = 1
    """Epochs from one checkpoint to the next."""
    tensorboard: bool = False
    """Also write event files for TensorBoard, in tensorboard/ of the run directory: epoch_loss and
    epoch_accuracy, for train and validation, as Keras's callback. Needs the extra cnnjax[tensorboard]."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ALONE

    def __call__(self) -> None:
        """Train, with a line an epoch, and say where the files are."""
        from cnnjax import models
        from cnnjax.devices.layouts import layout
        from cnnjax.runs import following, resumption, training

        over = layout(self.devices, self.parallel)
        if not leads():
            return following.follow(over, self.data_dir)
        values = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        given = {name: value for name, value in values.items() if value is not None}
        asked = TrainConfig(**given)
        models.model_named(asked.model)
        out = self.out or Path("runs", f"{asked.model}-seed{asked.seed}")
        known = resumption.recorded(out, lambda line: None) if self.resume else None  # training.train tells
        config, data_dir = (replace(known[0], **given), known[1]) if known else (asked, None)
        training.train(
            config,
            out,
            data_dir=self.data_dir or data_dir,
            overwrite=self.overwrite,
            resume=self.resume,
            checkpoint_every=self.checkpoint_every,
            layout=over,
            tensorboard=self.tensorboard,
        )


DESCRIPTION = """Convolution, pooling and dropout in JAX, with evidence.

cnnjax COMMAND --help explains a command. For completion with TAB in bash: eval "$(cnnjax --completion bash)";
in zsh save the output of cnnjax --completion zsh as _cnnjax in a directory of $fpath."""
COMMANDS: dict[str, Callable[..., runner.Command]] = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "export": Export,
    "summary": Summary,
    "data": Data,
    "report": Report,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `COMMANDS`; returns the exit code of `runner.run`."""
    return runner.run(COMMANDS, DESCRIPTION, arguments)
