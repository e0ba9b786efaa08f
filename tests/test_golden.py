"""The run directory in tests/data/golden, which every later version must read to the digit.

Its mask scheme, its text of the network and its checkpoints are formats on disk: a version that changes one
refuses the directory by name, and a test here says which.
"""

import hashlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import MORE, contents, fails, history, saved_tree, succeeds

from cnnjax.deploy.predict import trained
from cnnjax.runs import resumption

GOLDEN = MORE / "golden"
PARAMETERS = "6bd94eb236c449a9ee28393004afb3042f99fcdb3985dbcf7c3fa9de016142a5"
THIRD = [3, 0.789401, 0.76875, 0.659665, 0.825]
"""The row of history.csv after a third epoch, as it was trained at once with the two before it."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / "run")


def test_it_is_whole_and_its_parameters_are_those(run: Path) -> None:
    assert "whole, finished after 2 epochs" in succeeds("verify", str(run))
    network = trained(run, pytest.fail)
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(network.params))
    assert hashlib.sha256(content).hexdigest() == PARAMETERS


def test_it_is_evaluated_as_when_it_was_trained(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())["test"]
    printed = succeeds("evaluate", str(run), "--data-dir", str(MORE))
    assert f"loss {result['loss']:.4f}, accuracy {result['accuracy']:.4f} " in printed


def test_it_goes_on_as_if_it_had_never_stopped(run: Path) -> None:
    before = contents(run / "checkpoints" / "epoch-2")
    data = ("--data-dir", str(MORE))
    assert "nothing to do" in succeeds("train", "--resume", "--out", str(run), *data)
    printed = succeeds("train", "--resume", "--out", str(run), "--epochs", "3", *data)
    assert "resumed after epoch 2 of 3" in printed
    # Another processor, or other versions, may change the last digits.
    np.testing.assert_allclose([float(text) for text in history(run)[3]], THIRD, rtol=1e-3)
    assert contents(run / "checkpoints" / "epoch-2") == before
    assert history(run)[:3] == history(GOLDEN)
    assert saved_tree(run, 3)["step"] == 24


def test_another_mask_scheme_refuses_it_by_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "MASK_SCHEME", 3)
    line = fails(1, "train", "--resume", "--out", str(run), "--epochs", "3", "--data-dir", str(MORE))
    assert "mask scheme 2, and this version has mask scheme 3" in line
