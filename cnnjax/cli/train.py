"""The `train` command."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cnnjax.cli.runner import DataDirectory, shown
from cnnjax.devices.processes import ALONE, Processes, leads
from cnnjax.errors import ArgumentError
from cnnjax.files.misspelt import did_you_mean
from cnnjax.runs.train_config import TrainConfig


def _config(name: str) -> Any:
    """A flag of `TrainConfig`: None means its default there or, with --resume, the run's own value."""
    value = getattr(TrainConfig, name)
    return shown("INT", "that of --seed") if value is None else shown(type(value).__name__.upper(), value)


@dataclass(frozen=True)
class Train:
    """Train one network and write a run directory.

    The defaults reproduce the first tutorial. Every epoch prints a line and
    writes a checkpoint; --resume continues an interrupted run with bitwise
    identical results. A command that is started again and again, as by SLURM,
    takes --resume auto.

    Example: cnnjax train --dropout-rate 0 --epochs 5 --out runs/no-dropout
    """

    model: Annotated[str | None, _config("model")] = None
    """keras-cnn, lenet-swish, or your own flax.linen.Module as package.module:NAME."""
    dataset: Annotated[str | None, _config("dataset")] = None
    """mnist, fashion_mnist, kmnist, FILE.npz, FILE.csv, a directory of images or IDX files, or tfds:NAME."""
    data_dir: DataDirectory = None
    dropout_rate: Annotated[float | None, _config("dropout_rate")] = None
    """Probability of dropping a feature during training, from 0 to 1."""
    epochs: Annotated[int | None, _config("epochs")] = None
    """Passes over the training images."""
    batch_size: Annotated[int | None, _config("batch_size")] = None
    """Images per step."""
    learning_rate: Annotated[float | None, _config("learning_rate")] = None
    """Step size of the optimizer."""
    seed: Annotated[int | None, _config("seed")] = None
    """Seed of the initial weights, the shuffling and the dropout masks."""
    init_seed: Annotated[int | None, _config("init_seed")] = None
    """Seed of the initial weights alone."""
    order_seed: Annotated[int | None, _config("order_seed")] = None
    """Seed of the shuffling alone."""
    mask_seed: Annotated[int | None, _config("mask_seed")] = None
    """Seed of the dropout masks alone."""
    optimizer: Annotated[str | None, _config("optimizer")] = None
    """adam, rmsprop, sgd or adamw, as in Keras."""
    schedule: Annotated[str | None, _config("schedule")] = None
    """Learning rate over the run: constant; cosine: falls to 0; one-cycle: rises for 30%, then falls."""
    weight_decay: Annotated[float | None, _config("weight_decay")] = None
    """adamw, sgd: each step shrinks all parameters by learning rate x weight decay."""
    momentum: Annotated[float | None, _config("momentum")] = None
    """sgd: share of the last step that is added to the next, from 0 to below 1."""
    train_split: Annotated[str | None, _config("train_split")] = None
    """part: train on 80% of the images, validate on 20%; all: train on all, validate on the test images."""
    pixel_scale: Annotated[float | None, _config("pixel_scale")] = None
    """Factor applied to pixels in [0, 1]; 255 gives the raw pixels of the second tutorial."""
    compute_dtype: Annotated[str | None, _config("compute_dtype")] = None
    """float32 or bfloat16, for activations and gradients; parameters stay float32."""
    devices: Annotated[int | None, shown("INT", "all, but 1 on a CPU")] = None
    """Devices per process to divide each batch over; on a CPU, any number can be simulated."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the division over devices is compiled; results are the same."""
    stop_early: Annotated[int | None, _config("stop_early")] = None
    """Stop after this number of epochs without a lower validation loss, and keep the best epoch; 0: never."""
    config: Annotated[Path | None, shown("FILE")] = None
    """TOML or JSON file with values of these flags, such as a run's config.json; flags given here win."""
    out: Annotated[Path | None, shown("DIR", "runs/<model>-seed<seed>")] = None
    """Run directory."""
    resume: Annotated[tuple[Literal["auto"], ...] | None, shown("[auto]")] = None
    """Continue the run in --out; omitted flags keep their values. auto: start it if there is none."""
    overwrite: bool = False
    """Replace the run in --out."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard event files, named as Keras names them. Needs cnnjax[tensorboard]."""
    mlflow: bool = False
    """Also send settings, metrics and files to MLflow (MLFLOW_TRACKING_URI). Needs cnnjax[mlflow]."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ALONE

    def __call__(self) -> None:
        """Train, or follow process 0 as one of several processes."""
        from cnnjax.cli import tracking
        from cnnjax.data import identity
        from cnnjax.devices.layouts import layout
        from cnnjax.report import say
        from cnnjax.runs import building, following, resumption, run_directory, training

        over = layout(self.devices, self.parallel)
        names = (f.name for f in fields(TrainConfig) if f.name != "custom")
        flags = {name: value for name in names if (value := getattr(self, name)) is not None}
        if not leads():
            return following.follow(over, flags, self.data_dir)
        given = resumption.settings(self.config) if self.config else {}
        data_dir = given.pop("data_dir", None)
        data_dir = self.data_dir or (data_dir and Path(data_dir))
        given |= flags
        if "dataset" in given:
            given["dataset"] = identity(given["dataset"])
        given = building.completed(given)
        config = TrainConfig(**given)
        out = self.out or Path("runs", f"{config.model.replace(':', '.')}-seed{config.seed}")
        resume = self.resume is not None
        # `training.train` reads the record again and announces any damage.
        if resume and (recorded := resumption.recorded(out, lambda _: None)):
            config, data_dir = replace(recorded.config, **given), data_dir or recorded.data_dir
        elif resume and not self.resume and not run_directory.holds_run(out):
            near = did_you_mean(out, run_directory.holds_run)
            raise ArgumentError(
                f"{out} holds no run{near}; give the --out of a run, or --resume auto to start one"
            )
        tracker = tracking.Tracker(out, asdict(config), resume, say) if self.mlflow else None
        with tracker or nullcontext():
            record = training.train(
                config,
                out,
                data_dir=data_dir,
                overwrite=self.overwrite,
                resume=resume,
                checkpoint_every=self.checkpoint_every,
                layout=over,
                tensorboard=self.tensorboard,
                on_epoch=tracker and tracker.epoch,
                announce=say,
            )
            if tracker is not None:
                tracker.finish(record)
