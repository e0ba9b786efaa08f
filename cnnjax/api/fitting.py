"""Train one network with one call, as Keras's `fit` does."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from numpy.typing import ArrayLike

from cnnjax import plots
from cnnjax.api.arguments import Data, named_as_arguments, named_or_loaded
from cnnjax.data import Dataset, Loaded, identity
from cnnjax.data import load as load_data
from cnnjax.data.arrays import check_images
from cnnjax.data.loading import MEMORY
from cnnjax.deploy.evaluation import part
from cnnjax.deploy.predict import Trained, evaluated, probabilities, same_data, trained
from cnnjax.files import temporary
from cnnjax.files.misspelt import nearest
from cnnjax.runs import building, training
from cnnjax.runs.building import Custom
from cnnjax.runs.run_directory import COLUMNS
from cnnjax.runs.train_config import CUSTOM, TrainConfig
from cnnjax.runs.training import OnEpoch
from cnnjax.shapes import Float32
from cnnjax.state import Params
from cnnjax.stats.sentences import plural
from cnnjax.task import Augment, Loss, MakeOptimizer, Preprocess

SETTINGS = frozenset(field.name for field in fields(TrainConfig))


class Run(NamedTuple):
    """A trained network with its data."""

    network: Trained
    data: Loaded

    def __repr__(self) -> str:
        """Say what was trained, and how well: the arrays would fill the screen."""
        network = self.network
        val = f", validation accuracy {network.history[-1]['val_accuracy']:.4f}" if network.history else ""
        return f"<Run of {network.config.model} on {self.data.name}, {plural(network.epochs, 'epoch')}{val}>"

    @property
    def history(self) -> dict[str, list[float]]:
        """The metrics after every epoch, by name: loss, accuracy, val_loss, val_accuracy, seconds."""
        return {name: [row[name] for row in self.network.history] for name in COLUMNS[1:]}

    @property
    def params(self) -> Params:
        """The trained parameters."""
        return self.network.params

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """Compute `loss` (nats) and `accuracy` on the "test", "validation" or "train" images."""
        evaluation = evaluated(self.network, part(self.data, self.network.config, split))
        return {"loss": evaluation.loss, "accuracy": evaluation.accuracy}

    def predict(self, images: ArrayLike) -> Float32[np.ndarray, "n classes"]:
        """Compute class probabilities.

        Args:
            images: uint8[n, height, width, channels], or uint8[n, height, width] for grey images.

        Raises:
            UserError: the images have another dtype, or not the shape of those trained on.
        """
        checked = check_images(images, "the images")
        labels = np.zeros(len(checked), np.int32)
        return probabilities(self.network, Dataset(checked, labels, self.network.class_names))

    def plot(self) -> plots.Figure:
        """Draw loss and accuracy over the epochs."""
        config = self.network.config
        title = f"{config.network} on {self.data.name}, seed {config.seed}"
        return plots.training_curves(self.network.history, None, title, f"batch {config.batch_size}, one run")


@named_as_arguments()
def fit(
    model: str | nn.Module,
    data: Data = "mnist",
    *,
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: str | MakeOptimizer = "adam",
    learning_rate: float = 1e-3,
    dropout_rate: float | None = None,
    loss: Loss | None = None,
    preprocess: Preprocess | None = None,
    augment: Augment | None = None,
    hparams: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data_dir: str | Path | None = None,
    on_epoch: OnEpoch | None = None,
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Train a network.

        run = cnnjax.fit("keras-cnn", "mnist", epochs=3)
        run.history, run.evaluate(), run.predict(images), run.plot()

    Args:
        model: a name in `cnnjax.models.MODELS`, or any Linen module, see `cnnjax.task.Task`. A module with a
            field `classes` gets that of the data.
        data: see `cnnjax.api.arguments.Data`.
        epochs: passes over the training images.
        batch_size: images per step.
        optimizer: "adam", "rmsprop", "sgd" or "adamw", or a function from the hyperparameters to an optax
            transformation, such as `lambda hparams: optax.lion(hparams.learning_rate)`.
        learning_rate: step size of the optimizer.
        dropout_rate: of a model that reads one; 0.5 by default.
        loss: (logits, labels) -> f32[n]; softmax cross-entropy by default.
        preprocess: uint8 images -> float32 images; division by 255 by default.
        augment: (key, image) -> image, for one example in training; see `cnnjax.data.augmentation`.
        hparams: a NamedTuple of scalars in place of `learning_rate` and `dropout_rate`, for a model or an
            optimizer that reads others.
        seed: of initial weights, order and masks.
        out: run directory, as `cnnjax train` writes it; by default nothing stays on disk.
        resume: continue the run in `out`.
        overwrite: replace the run in `out`.
        data_dir: directory of the four IDX files of a named data set.
        on_epoch: called after every epoch with its metrics and the state.
        verbose: print a line per epoch.
        **settings: further settings of `cnnjax train`: schedule, weight_decay, momentum, stop_early,
            train_split, pixel_scale, compute_dtype, init_seed, order_seed and mask_seed.

    Raises:
        UserError: an argument is wrong, the data are not available, or training diverged.
    """
    data = named_or_loaded(data)
    name = model if isinstance(model, str) else getattr(model, "nnx_class", type(model)).__name__
    custom = Custom(
        model=None if isinstance(model, str) else model,
        optimizer=None if isinstance(optimizer, str) else optimizer,
        loss=loss,
        preprocess=preprocess,
        augment=augment,
        hparams=hparams,
    )
    custom = building.imported(name, custom)
    given = settings | {
        "model": name,
        "optimizer": optimizer if isinstance(optimizer, str) else CUSTOM,
        "dataset": MEMORY + data.name if isinstance(data, Loaded) else identity(str(data)),
        "custom": custom.texts,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    given |= {} if dropout_rate is None else {"dropout_rate": dropout_rate}
    for name in sorted(given.keys() - SETTINGS):
        near = nearest(name, [*inspect.signature(fit).parameters, *SETTINGS])
        raise TypeError(f"fit() got an unexpected keyword argument {name!r}{near}")
    config = TrainConfig(**building.completed(given, custom.model))
    announce = print if verbose else _silent
    loaded = _loaded(data, data_dir, announce)
    with temporary.directory("fit") as scratch:
        run = Path(out or scratch)

        def say(line: str) -> None:
            announce(line.removesuffix(f"; files in {scratch}"))

        try:
            training.train(
                config,
                run,
                custom=custom,
                data=loaded,
                data_dir=None if data_dir is None else Path(data_dir),
                resume=resume,
                overwrite=overwrite,
                on_epoch=on_epoch,
                announce=say,
                verbose=verbose,
            )
        except KeyboardInterrupt as stop:
            stop.args = () if out is None else (f"finished epochs are in {out}: resume=True continues",)
            raise
        return Run(trained(run, say, custom), loaded)


@named_as_arguments()
def load(
    directory: str | Path,
    data: Data | None = None,
    *,
    model: nn.Module | None = None,
    loss: Loss | None = None,
    preprocess: Preprocess | None = None,
    hparams: Any = None,
    verbose: bool = True,
) -> Run:
    """Load the trained network of a run directory.

    Args:
        directory: what `fit(..., out=directory)` or `cnnjax train --out` wrote.
        data: the data set, if the run was given arrays.
        model: the module, if `fit` was given one; likewise the next three.
        loss: as given to `fit`.
        preprocess: as given to `fit`.
        hparams: as given to `fit`.
        verbose: print what is read.

    Raises:
        UserError: there is no such run, or it was trained with other objects or other data.
    """
    announce = print if verbose else _silent
    custom = Custom(model=model, loss=loss, preprocess=preprocess, hparams=hparams)
    network = trained(Path(directory), announce, custom)
    given = network.config.dataset if data is None else named_or_loaded(data)
    return Run(network, same_data(network, _loaded(given, network.data_dir, announce)))


def _loaded(
    data: str | Path | Loaded, data_dir: str | Path | None, announce: Callable[[str], None]
) -> Loaded:
    if isinstance(data, Loaded):
        return data
    return load_data(str(data), None if data_dir is None else Path(data_dir), announce=announce)


def _silent(line: str) -> None:
    pass
