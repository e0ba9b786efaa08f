"""What several experiments share: their start, flag checks, renaming."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from cnnjax.cli import runner
from cnnjax.errors import ArgumentError
from cnnjax.experiment.results import Results
from cnnjax.models import ConvNet
from cnnjax.runs.building import model_named


def start(
    command: Callable[..., runner.Command],
    quick: Mapping[str, Any],
    description: str | None,
    prog: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the command of an experiment and return its exit code, see `runner.run`.

    With --quick the settings `quick` become the defaults, so that flags given beside it win.
    """
    given = sys.argv[1:] if arguments is None else arguments
    chosen = partial(command, **quick) if "--quick" in given else command
    return runner.run(chosen, description or "", arguments, prog)


def require_positive(**flags: int | tuple[int, ...]) -> None:
    """Raise `ArgumentError` if a flag has a value below 1."""
    for name, value in flags.items():
        if np.min(value, initial=1) < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} {value} must be at least 1")


def hypothesis(docstring: str | None) -> str:
    """Return the question and the hypotheses of an experiment: the first two paragraphs of its docstring."""
    return " ".join(" ".join((docstring or "").split("\n\n")[:2]).split())


def convnet_named(name: str) -> ConvNet:
    """Look up a network whose layers can be varied.

    Raises:
        ArgumentError: there is none of that name, or it is no `ConvNet`.
    """
    model = model_named(name)
    if not isinstance(model, ConvNet):
        raise ArgumentError(f"--model {name} is no ConvNet, whose layers this experiment varies")
    return model


def renamed(results: Results, names: Mapping[str, str]) -> Results:
    """Select the arms that are keys of `names`, and rename them."""
    rows = [results.arms.index(arm) for arm in names]
    stored = results.predictions
    return results._replace(
        arms=tuple(names.values()),
        values={metric: values[rows] for metric, values in results.values.items()},
        predictions={new: stored[arm] for arm, new in names.items() if arm in stored},
    )
