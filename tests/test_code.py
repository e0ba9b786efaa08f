"""What the functions of an arm or a run use is part of what a directory recognises."""

import importlib
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
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import Arm, Protocol, Splits
from cnnjax.files.code import code_used
from cnnjax.models import ConvNet
from cnnjax.runs.building import Custom, recognised
from cnnjax.runs.train_config import TrainConfig

SCALE, SHIFTS, UNUSED = 2.0, (1, "two"), 7
TABLE = np.arange(3.0)
CONFIG = {"slope": 0.2, "functions": [math.floor]}
STATE = [0]
LOG: list[int] = []
CALLS = 0
HERE = __name__
HERE_AS_A_MODULE = sys.modules[HERE]


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


def attributes(x: Any) -> Any:
    return HERE_AS_A_MODULE.SCALE * len(HERE_AS_A_MODULE.SHIFTS) + math.pi + np.pi


def configured(x: Any) -> Any:
    LOG.append(x)
    return CONFIG["slope"] * x


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
    "attribute": ({"loss": attributes}, {"SCALE", "SHIFTS"}),
    "dictionary": ({"loss": configured}, {"CONFIG"}),
    "none": ({"loss": np.sum, "optimizer": "adam"}, set()),
}


@pytest.mark.parametrize(("parts", "names"), ARMS.values(), ids=list(ARMS))
def test_helpers_and_constants_are_found_recursively(parts: dict[str, Any], names: set[str]) -> None:
    used = code_used(parts.values())
    assert set(used) == {f"{HERE}.{name}" for name in names}
    assert list(used) == sorted(used) and "0x" not in str(used)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCALE", 3.0),
        ("SHIFTS", (1, "three")),
        ("TABLE", np.arange(3.0) + 1e-9),
        ("twice", lambda x: x),
        ("CONFIG", {"slope": 0.9}),
    ],
)
def test_a_change_of_one_changes_it_and_of_state_does_not(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_used([loss, configured])
    for state, changed in (("STATE", [5]), ("LOG", [5]), ("CALLS", 5), ("UNUSED", 8)):
        monkeypatch.setitem(globals(), state, changed)
    assert code_used([loss, configured]) == before
    monkeypatch.setitem(globals(), name, value)
    after = code_used([loss, configured])
    assert after[f"{HERE}.{name}"] != before[f"{HERE}.{name}"]


def test_it_is_the_same_in_another_process() -> None:
    code = f"import json, {HERE} as t; print(json.dumps(t.code_used([t.Net(activation=t.both)])))"
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert json.loads(ended.stdout) == code_used([Net(activation=both)]), ended.stderr


def test_the_code_beside_is_that_of_the_directory_unless_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path, tmp_path / "site-packages", tmp_path / "else"):
        place.mkdir(exist_ok=True)
        monkeypatch.syspath_prepend(str(place))
        name = f"{place.name.replace('-', '_')[:4]}_beside"
        (place / f"{name}_it.py").write_text("SCALE = 2.0\ndef act(x): return SCALE * x\n")
        (place / f"{name}.py").write_text(
            f"import {name}_it as helper\nfrom {name}_it import act\n"
            "def both(x): return helper.act(x) + helper.SCALE\ndef one(x): return act(x)\n"
        )
        module = importlib.import_module(name)
        numbers, functions = {f"{name}_it.SCALE"}, {f"{name}_it.act", f"{name}.act"}
        used = code_used([module.both, module.one])
        installed = place.name == "site-packages"
        assert used.keys() == (set() if installed else numbers | functions), place


def test_a_run_refuses_another_helper_and_earlier_ones_load(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(custom=Custom(loss=loss).texts)
    assert config.custom[f"loss uses {HERE}.SCALE"] == "2.0"
    assert recognised(config, Custom(loss=loss), "runs/a").loss is loss
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    with pytest.raises(
        UserError, match=r"SCALE, which the loss uses, differs from that of runs/a: it was 2.0, and is 3"
    ):
        recognised(config, Custom(loss=loss), "runs/a")
    earlier = TrainConfig(custom={"loss": config.custom["loss"]})
    assert recognised(earlier, Custom(loss=loss), "runs/a").loss is loss


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
