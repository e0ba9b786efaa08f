"""What an arm's functions use is part of what a directory recognises."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from cnnjax import experiment
from cnnjax.config import HParams
from cnnjax.data import Dataset
from cnnjax.errors import ArgumentError
from cnnjax.experiment import Arm, Protocol, Splits
from cnnjax.experiment.code import code_used
from cnnjax.models import ConvNet

SCALE, SHIFTS, UNUSED = 2.0, (1, "two"), 7
TABLE = np.arange(3.0)
STATE = [0]
CALLS = 0
HERE = __name__


def twice(x: Any) -> Any:
    return SCALE * x


def both(x: Any) -> Any:
    return [other(each) for each in (twice(x), len(SHIFTS))]


def other(x: Any) -> Any:
    """Call `both`, which calls it."""
    global CALLS
    CALLS += 1
    STATE[0] += 1
    return both(x) if x is None else math.floor(np.sum(TABLE))


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return both(logits)[0] + labels


class Base(nn.Module):
    """Its methods use a helper."""

    def scaled(self, x: jax.Array) -> jax.Array:
        return twice(x)


class Net(Base):
    """Has a base and a part of its own."""

    activation: Callable[[Any], Any] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(3)(Base().scaled(x))


def enclosed(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x)


ALL = {"twice", "SCALE", "other", "SHIFTS", "TABLE", "both"}
ARMS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "loss": ({"loss": loss}, ALL),
    "partial": ({"augment": partial(both, x=1)}, ALL),
    "closure": ({"loss": enclosed(both)}, ALL),
    "jitted": ({"preprocess": jax.jit(twice)}, {"SCALE"}),
    "activation": ({"model": ConvNet(activation=twice)}, {"SCALE"}),
    "network": ({"model": Net()}, {"Base", "twice", "SCALE"}),
    "field": ({"model": Net(activation=both)}, {"Base", *ALL}),
    "none": ({"loss": np.sum, "optimizer": "adam"}, set()),
}


def arm(**parts: Any) -> Arm:
    return Arm("mine", **{"model": ConvNet(), "hparams": HParams(), **parts})


@pytest.mark.parametrize(("parts", "names"), ARMS.values(), ids=list(ARMS))
def test_helpers_and_constants_are_found_recursively(parts: dict[str, Any], names: set[str]) -> None:
    used = code_used(arm(**parts))
    assert set(used) == {f"{HERE}.{name}" for name in names}
    assert list(used) == sorted(used) and "0x" not in str(used)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCALE", 3.0),
        ("SHIFTS", (1, "three")),
        ("TABLE", np.arange(3.0) + 1e-9),
        ("twice", lambda x: x),
    ],
)
def test_a_change_of_one_changes_it_and_of_state_does_not(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_used(arm(loss=loss))
    for state, changed in (("STATE", [5]), ("CALLS", 5), ("UNUSED", 8)):
        monkeypatch.setitem(globals(), state, changed)
    assert code_used(arm(loss=loss)) == before
    monkeypatch.setitem(globals(), name, value)
    after = code_used(arm(loss=loss))
    assert after[f"{HERE}.{name}"] != before[f"{HERE}.{name}"]


def test_it_is_the_same_in_another_process() -> None:
    code = f"import json, {HERE} as t; print(json.dumps(t.code_used(t.arm(model=t.Net(activation=t.both)))))"
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert json.loads(ended.stdout) == code_used(arm(model=Net(activation=both))), ended.stderr


@pytest.mark.slow
def test_a_directory_refuses_another_helper_and_earlier_ones_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset(np.zeros((8, 4, 4, 1), np.uint8), np.arange(8, dtype=np.int32) % 3)
    network = ConvNet(features=(2,), hidden=(), dropout="none", activation=twice)
    mine = Arm("mine", network, HParams(1e-3, 0.0))

    def run() -> None:
        protocol = Protocol(epochs=1, seeds=1, batch_size=8)
        experiment.run([mine], protocol, Splits(data, data, data, {}), tmp_path)

    run()
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    with pytest.raises(ArgumentError, match=r"another protocol \(different: code of arm mine\)"):
        run()
    record = json.loads((tmp_path / "protocol.json").read_text())
    del record["code of arm mine"]
    (tmp_path / "protocol.json").write_text(json.dumps(record))
    run()
