"""What an experiment refuses before it writes or trains anything; every error names the arm."""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.config import OPTIMIZER_NAMES, HParams, require_read
from cnnjax.data import Dataset, require_batch, require_dataset
from cnnjax.errors import ArgumentError, one_line
from cnnjax.experiment.protocol import Arm, Protocol, Splits
from cnnjax.experiment.rows import METRICS, Row
from cnnjax.files.misspelt import choose
from cnnjax.keys import run_streams
from cnnjax.models import ConvNet
from cnnjax.population import stack
from cnnjax.shapes import Index
from cnnjax.task import HParams as AnyHParams
from cnnjax.task import Task, reads_rate, require_fit
from cnnjax.train import Arrays, Plan, make_training

LONGEST = 200
"""Bytes of an arm's name, which is part of a file's."""
LARGEST = 3.4e38
"""Above it float32 has nothing finite."""
BATCH = 8
"""Images of a step in `require_determined`."""
TRACES = 3
"""In `require_determined`: a choice of one in five, made in Python, is the same in all at one in 25."""
IMPURE = re.compile(r"custom_call|stablehlo\.rng[ :]")
"""A lowered program without these is a function of its arguments: no callback to Python, no hidden state."""


def require_arms(arms: Sequence[Arm], protocol: Protocol) -> None:
    """Check the arms by themselves: names, hyperparameters, optimizers.

    Raises:
        ArgumentError: there are no arms, two have one name, a name cannot be a file's, a hyperparameter is
            not a finite number, an optimizer is unknown or does not read a hyperparameter that is set, or a
            network does not read its dropout rate.
    """
    if not arms:
        raise ArgumentError("there are no arms; give at least one")
    seen: set[str] = set()
    for arm in arms:
        name = arm.name
        if not name.isprintable() or "/" in name or not 0 < len(name.encode()) <= LONGEST:
            raise ArgumentError(
                f"the arm {name[:LONGEST]!r} cannot name a file; use 1 to {LONGEST} printable characters "
                "other than /"
            )
        # Some file systems do not tell upper from lower case.
        if name.casefold() in seen:
            raise ArgumentError(f"two arms have the name {name}; give each a name of its own")
        seen.add(name.casefold())
        _require_arm(arm, protocol)
    _require_rates(arms)


def _require_rates(arms: Sequence[Arm]) -> None:
    """Refuse a dropout rate that does nothing: one that is not the default, or differs between equal arms."""
    default = HParams().dropout_rate
    for arm in arms:
        rate = getattr(arm.hparams, "dropout_rate", 0.0)
        if not rate or reads_rate(arm.model):
            continue
        alike = [other.hparams for other in arms if other.model == arm.model]
        if rate != default or any(getattr(hparams, "dropout_rate", rate) != rate for hparams in alike):
            raise ArgumentError(
                f"arm {arm.name}: the dropout rate {float(rate):g} does nothing, because its network has no "
                "place for it; give 0, or another network"
            )


def require_data(splits: Splits, probes: Mapping[str, Dataset], batch_size: int) -> None:
    """Check the data sets by themselves and against each other, see `cnnjax.data.require_dataset`.

    Raises:
        ArgumentError: one is wrong in itself, or its images have another shape than those to train on; the
            name of a probe cannot be that of columns, or these are the experiment's own; or a batch is larger
            than the training set.
    """
    for name in probes:
        text = isinstance(name, str) and name.isprintable()
        if not (text and name and "," not in name) or f"{name}_loss" in METRICS:
            raise ArgumentError(
                f"the probe {name!r} cannot name columns of results.csv; use printable characters other than "
                "the comma, and not train, val or test"
            )
    parts = [("training", splits.train), ("validation", splits.val), ("test", splits.test), *probes.items()]
    for name, data in parts:
        require_dataset(data, name)
        if data.image_shape != splits.train.image_shape:
            raise ArgumentError(
                f"the {name} images have shape {data.image_shape}, and the training images "
                f"{splits.train.image_shape}; give both the same height, width and channels"
            )
    require_batch(batch_size, len(splits.train.labels))


def require_probed(rows: Iterable[Row], probes: Iterable[str], out: Path) -> None:
    """Check that rows of the last epoch have all probes; those of an earlier version may lack a new one.

    Raises:
        ArgumentError: a row, unless it is empty, has no value of a probe.
    """
    lacking = {probe for row in rows for probe in probes if row and f"{probe}_loss" not in row}
    if lacking:
        raise ArgumentError(f"{out} was computed without the probe {min(lacking)}; choose another --out")


def _require_arm(arm: Arm, protocol: Protocol) -> None:
    of = f"arm {arm.name}: "
    if not isinstance(arm.model, nn.Module):
        raise ArgumentError(f"{of}the network is {arm.model!r}; give an instance of a flax.linen.Module")
    if not hasattr(arm.hparams, "_asdict"):
        raise ArgumentError(f"{of}the hparams are {arm.hparams!r}; give a NamedTuple of numbers, as HParams")
    for name, value in arm.hparams._asdict().items():
        scalar = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf"
        if not scalar or not abs(float(value)) < LARGEST:
            raise ArgumentError(f"{of}{name} is {value!r}; give a finite number")
        if not isinstance(arm.hparams, HParams):
            continue
        if name == "momentum" and not 0 <= value < 1:
            raise ArgumentError(f"{of}momentum {value:g} must be at least 0 and below 1")
        if name == "learning_rate" and value == 0:
            raise ArgumentError(f"{of}learning_rate 0 trains nothing; give a positive number")
        most = 1 if name == "dropout_rate" else LARGEST
        if not 0 <= value <= most:
            raise ArgumentError(f"{of}{name} {value:g} must lie between 0 and {most:g}")
    if callable(arm.optimizer):
        if protocol.schedule != "constant":
            raise ArgumentError(
                f"{of}--schedule {protocol.schedule} is for optimizers given by name; put the schedule into "
                "the optimizer"
            )
    else:
        optimizer = arm.optimizer or protocol.optimizer
        if optimizer not in OPTIMIZER_NAMES:
            raise ArgumentError(
                f"{of}unknown optimizer {optimizer!r}{choose(str(optimizer), OPTIMIZER_NAMES)}, or give a "
                "function from hparams to an optax optimizer"
            )
        require_read(arm.hparams, optimizer, of)
    try:
        hash((arm.model, arm.optimizer, arm.loss, arm.preprocess, arm.augment))
    except TypeError as error:
        raise ArgumentError(f"{of}{one_line(error)}; give tuples and named functions instead") from error


def require_model(arm: Arm, task: Task, data: Dataset) -> None:
    """Check that the network and its loss go with the data, see `cnnjax.task.require_fit`."""
    require_fit(task, data.image_shape, data.classes, _traced(arm), f"arm {arm.name}")


def require_determined(arm: Arm, task: Task, data: Dataset) -> None:
    """Check that an arm's keys decide its result: trace two training steps again and compare the programs.

    NumPy's random numbers or a counter in `__call__` become constants, which differ between traces. If the
    programs differ, or call back into Python, two runs are compared.

    It takes seconds, so a `ConvNet` of parts that this project tests is taken to be determined.

    Raises:
        ArgumentError: two runs differ, or a step fails.
    """
    if _tested(arm):
        return
    rows = np.arange(2 * BATCH) % len(data.labels)
    given = jnp.uint32(0), Arrays(jnp.asarray(data.images[rows]), jnp.asarray(data.labels[rows]))
    plan, on_cpu = jnp.arange(2 * BATCH, dtype=jnp.int32).reshape(2, BATCH), jax.default_backend() == "cpu"

    def trace() -> Any:
        run = make_training(task, data.image_shape, 2 * BATCH, BATCH)

        def two_steps(seed: Index, data: Arrays, plan: Plan, hparams: AnyHParams) -> Any:
            state, sums = run.epoch(run.init(run_streams(seed), hparams), data, plan, hparams)
            measured = sums, run.evaluate(state, data, hparams)[0]
            # On an accelerator, the order of sums may vary, and Adam enlarges the smallest differences.
            return (measured, state.params, state.collections) if on_cpu else measured

        return jax.jit(two_steps).lower(*given, plan, _traced(arm))

    with _named(arm, "a training step fails"):
        programs = {program.as_text(): program for program in (_anew(trace) for _ in range(TRACES))}
        text, *others = programs
        if not others and not IMPURE.search(text):
            return
        # Only compiled to run two steps.
        options = {"xla_backend_optimization_level": 0} if on_cpu else None
        one, other = (
            jax.device_get(programs[each].compile(options)(*given, plan, _traced(arm)))
            for each in (text, *others, text)[:2]
        )
    same = partial(np.array_equal, equal_nan=True) if on_cpu else partial(np.allclose, rtol=1e-3)
    if not jax.tree.all(jax.tree.map(same, one, other)):
        raise ArgumentError(
            f"arm {arm.name}: two runs with the same keys differ, so its network, loss, augmentation or "
            "optimizer depends on something else, such as NumPy's random numbers or a counter; draw from a "
            'key, in a module that of self.make_rng("dropout")'
        )


def _anew(trace: Callable[[], Any]) -> Any:
    """Trace without what JAX remembers of the jitted functions inside.

    Their traces are kept by settings; this one, otherwise unused, changes no program.
    """
    before = jax.config.values["jax_xla_profile_version"]
    jax.config.update("jax_xla_profile_version", secrets.randbelow(2**31))
    try:
        return trace()
    finally:
        jax.config.update("jax_xla_profile_version", before)


def _tested(arm: Arm) -> bool:
    """Whether an arm has no function of the user's own."""
    parts = *vars(arm.model).values(), arm.optimizer, arm.loss, arm.preprocess, arm.augment
    origins = {getattr(part, "__module__", "").split(".")[0] for part in parts if callable(part)}
    return type(arm.model) is ConvNet and origins <= {"cnnjax", "jax", "flax"}


def _traced(arm: Arm) -> AnyHParams:
    """Return the hyperparameters as they enter the program: f32[] each."""
    return jax.tree.map(lambda leaf: leaf[0], stack([arm.hparams]))


@contextmanager
def _named(arm: Arm, what: str) -> Iterator[None]:
    """Turn an error of the user's functions into an `ArgumentError` that names the arm."""
    try:
        yield
    except Exception as error:
        raise ArgumentError(f"arm {arm.name}: {what}: {one_line(error)}") from error
