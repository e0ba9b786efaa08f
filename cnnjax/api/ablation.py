"""An ablation in one call: train, report and keep the result.

result = ablate({"kernel 3": ConvNet(kernel_size=3), "kernel 5": ConvNet(kernel_size=5)}, "mnist", seeds=8)
result.conclusion, result.to_dataframe(), result.to_latex(), result.plot("val_loss")
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn

from cnnjax import data as datasets
from cnnjax import experiment
from cnnjax.api.arguments import Data, named_as_arguments, named_or_loaded
from cnnjax.config import HParams
from cnnjax.data import Loaded
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm, OnNan, Plan, Protocol, Splits
from cnnjax.experiment.protocol import divide
from cnnjax.experiment.results import Results
from cnnjax.report.ablation import Ablation
from cnnjax.report.progress import member_progress
from cnnjax.runs.building import for_classes, model_named
from cnnjax.stats.sentences import plural
from cnnjax.task import Augment, Loss, MakeOptimizer, Preprocess

ArmLike = Arm | nn.Module | str | tuple[nn.Module | str, Any]
"""An `Arm`, a network, a name of `cnnjax.models.MODELS`, or either of the last two with its hparams: a
NamedTuple, or a dict of those that differ from the others'."""


@named_as_arguments()
def ablate(
    arms: Mapping[str, ArmLike] | Sequence[Arm],
    data: Data,
    *,
    seeds: int = 6,
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: str | MakeOptimizer = "adam",
    learning_rate: float = 1e-3,
    schedule: str = "constant",
    dropout_rate: float = 0.5,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    hparams: Any = None,
    loss: Loss | None = None,
    preprocess: Preprocess | None = None,
    augment: Augment | None = None,
    out: str | Path = "results/ablation",
    data_dir: str | Path | None = None,
    hypothesis: str = "",
    primary: str | None = None,
    margin: float | None = None,
    first_seed: int = 0,
    looks: Sequence[int] = (),
    replan: bool = False,
    train_size: int | None = None,
    train_split: Literal["part", "all"] = "part",
    init_seed: int | None = None,
    order_seed: int | None = None,
    mask_seed: int | None = None,
    split_seed: int = 0,
    chunk: int | None = None,
    on_nan: OnNan = "stop",
) -> Ablation:
    """Train every arm with the same seeds, and report how the arms differ from the first.

    Arms that differ in hyperparameters alone train in one compiled program. If JAX has not computed anything
    yet, the CPU is split into a device per core, which all of this process then sees. `out` gets results.csv,
    summary.json, protocol.json, predictions and PNG figures; a second call trains only what is missing there.

    Args:
        arms: by name; the first is the reference. A network with a field `classes` gets that of the data.
        data: see `cnnjax.api.arguments.Data`.
        seeds: paired networks of every arm.
        epochs: passes over the training images.
        batch_size: images a step.
        optimizer: "adam", "rmsprop", "sgd" or "adamw" as in Keras, or a function from the hyperparameters to
            an optax optimizer.
        learning_rate: this and the next numbers make the `HParams` of all arms that have none of their own.
        schedule: of the learning rate: "constant", "cosine" or "one-cycle".
        dropout_rate: from 0 to 1.
        weight_decay: for "adamw" and "sgd".
        momentum: for "sgd".
        hparams: a NamedTuple of numbers in place of these four.
        loss: (logits f32[n, classes], labels i32[n]) -> f32[n]; by default the cross-entropy. It is what all
            columns of losses hold, so arms with losses of their own compare in accuracy alone.
        preprocess: uint8[n, h, w, c] -> f32[n, h, w, c]; by default a division by 255.
        augment: (key, uint8[h, w, c]) -> uint8[h, w, c], in training only.
        out: directory of the results.
        data_dir: directory of the four IDX files of a named data set.
        hypothesis: this and the next are the plan, which plan.json has before the first epoch.
        primary: the arm whose difference is tested first; those of others count only if it is significant.
        margin: smallest difference of interest in validation accuracy; 0.001 is a tenth of a point.
        first_seed: the seeds are this one and the next; fresh seeds confirm an earlier result.
        looks: planned numbers of seeds, each of which `seeds` reaches in turn; they share the 5% of false
            positives.
        replan: allow another plan than the results in `out` have; every conclusion then says so.
        train_size: training images to use; by default all.
        train_split: "all" trains on the validation images too.
        init_seed: all networks get the initial weights of this seed.
        order_seed: likewise, the order of the training images.
        mask_seed: likewise, the dropout masks.
        split_seed: of the split into training and validation images.
        chunk: networks to `vmap` at a time; by default chosen for the backend.
        on_nan: "continue" counts a network whose loss is not finite as diverged, "stop" raises.

    Raises:
        ArgumentError: an argument is wrong, or `out` holds results of other settings; nothing is written.
        UserError: the data are not available, `out` cannot be written, or a network diverged.
    """
    listed = isinstance(arms, Sequence) and all(isinstance(arm, Arm) for arm in arms)
    if not isinstance(arms, Mapping) and not listed:
        raise ArgumentError("give the arms as a dict from names to networks, or as a list of Arm")
    named = arms.items() if isinstance(arms, Mapping) else [(arm.name, arm) for arm in arms]
    if hparams is None:
        hparams = HParams(learning_rate, dropout_rate, weight_decay, momentum)
    elif HParams(learning_rate, dropout_rate, weight_decay, momentum) != HParams():
        raise ArgumentError("give the learning rate and the other numbers in hparams, or omit hparams")
    data = named_or_loaded(data)
    if isinstance(data, Loaded) and data_dir is not None:
        raise ArgumentError("data_dir is for a data set given by name; omit it")
    protocol = Protocol(
        epochs=epochs,
        seeds=seeds,
        first_seed=first_seed,
        batch_size=batch_size,
        dataset=data.name if isinstance(data, Loaded) else datasets.identity(str(data)),
        optimizer=optimizer if isinstance(optimizer, str) else "adam",
        train_size=train_size,
        train_split=train_split,
        schedule=schedule,
        init_seed=init_seed,
        order_seed=order_seed,
        mask_seed=mask_seed,
        split_seed=split_seed,
    )
    looks = tuple(looks) if isinstance(looks, Sequence) else (looks,)
    if not all(isinstance(number, int) for number in looks):
        raise ArgumentError(f"looks {looks} must be whole numbers of seeds")
    own = {"loss": loss, "preprocess": preprocess, "augment": augment}
    if not isinstance(optimizer, str):
        own["optimizer"] = optimizer
    complete = [_arm(str(name), given, hparams, own) for name, given in named]
    if primary is not None and primary not in [arm.name for arm in complete[1:]]:
        raise ArgumentError(f"primary {primary!r} must name an arm other than the first")
    if isinstance(data, Loaded):
        splits = divide(data, protocol)
    else:
        splits = experiment.prepare(protocol, None if data_dir is None else Path(data_dir))
    complete = [replace(arm, model=for_classes(arm.model, splits.train.classes)) for arm in complete]
    experiment.use_every_core()
    plan = Plan(
        hypothesis=hypothesis,
        reference=complete[0].name if complete else None,
        primary=primary,
        family=tuple(arm.name for arm in complete[1:]),
        margin=margin,
        seeds=max(looks, default=seeds),
        first_seed=first_seed,
        looks=looks,
    )
    results = run(complete, protocol, splits, Path(out), chunk=chunk, on_nan=on_nan, plan=plan, replan=replan)
    line = f"{Path(protocol.dataset).name}, {settings(complete, protocol, splits)}"
    result = Ablation(results, splits.test, line, primary, margin, results.alpha)
    result.write(Path(out), {"accuracy_by_arm.png": result.plot_final})
    return result


def run(arms: Sequence[Arm], protocol: Protocol, splits: Splits, out: Path, **options: Any) -> Results:
    """Call `experiment.run` and show its progress."""
    with member_progress() as progress:
        return experiment.run(arms, protocol, splits, out, **options, report=progress)


def settings(arms: Sequence[Arm], protocol: Protocol, splits: Splits) -> str:
    """Describe what arms share: "48,000 training images, batch 32, adam 0.001, 5 epochs, 8 paired seeds"."""

    def shared(value: Any) -> Any:
        first, *others = map(value, arms)
        return first if all(other == first for other in others) else None

    def number(name: str) -> Any:
        return shared(lambda arm: getattr(arm.hparams, name, None))

    optimizer, rate = shared(lambda arm: arm.optimizer or protocol.optimizer), number("learning_rate")
    parts = [f"{len(splits.train.labels):,} training images", f"batch {protocol.batch_size}"]
    if optimizer is not None:
        parts.append(_name(optimizer) + (f" {rate:g}" if rate is not None else ""))
    if protocol.schedule != "constant":
        parts.append(f"{protocol.schedule} schedule")
    regularised = {name: number(name) for name in ("weight_decay", "momentum")}
    parts += [f"{name.replace('_', ' ')} {value:g}" for name, value in regularised.items() if value]
    for piece in ("loss", "preprocess", "augment"):
        if (own := shared(lambda arm, piece=piece: getattr(arm, piece))) is not None:
            parts.append(f"{piece} {_name(own)}")
    parts += [
        plural(protocol.epochs, "epoch"),
        plural(protocol.seeds, "paired seed") + f" from {protocol.first_seed}" * (protocol.first_seed > 0),
    ]
    seeds = {"init": protocol.init_seed, "order": protocol.order_seed, "mask": protocol.mask_seed}
    parts += [f"{name} seed {seed} in all" for name, seed in seeds.items() if seed is not None]
    if protocol.split_seed:
        parts.append(f"split seed {protocol.split_seed}")
    return ", ".join(parts)


def _arm(name: str, given: Any, hparams: Any, own: Mapping[str, Any]) -> Arm:
    """Complete an arm: what it does not say itself comes from `hparams` and `own`."""
    if isinstance(given, Arm):
        said = {field: value for field, value in own.items() if getattr(given, field) is None}
        return replace(given, name=name, **said)
    model, numbers = given if isinstance(given, tuple) and len(given) == 2 else (given, hparams)
    numbers = hparams._replace(**numbers) if isinstance(numbers, dict) else numbers
    network: Any = model_named(model) if isinstance(model, str) else model
    return Arm(name, network, numbers, **own)


def _name(value: Any) -> str:
    """Name an optimizer or a function in a caption."""
    named = value.func if isinstance(value, partial) else value
    return value if isinstance(value, str) else getattr(named, "__name__", type(named).__name__)
