"""Networks for the records: how many parameters they have, and that a rehearsal leaves what it should."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import records
from helpers import TINY

from cnnjax import experiment


@pytest.mark.parametrize("name", records.RECORDS)
def test_a_network_keeps_to_its_number_of_parameters(name: str, key: jax.Array) -> None:
    record = records.RECORDS[name]
    shapes = jax.eval_shape(
        lambda: record.network.init(key, jnp.zeros((1, 28, 28, 1)), train=False, dropout_rate=0.0)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == {"small": 9_914, "plain": 288_170}[name]
    assert record.parameters is None or count <= record.parameters


def start(*given: str) -> int:
    return records.start(records.Records, records.QUICK, "", "x", given)


@pytest.mark.slow
def test_a_rehearsal_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "use_every_core", lambda: None)
    small = ["--quick", "--dataset", "fashion_mnist", "--data-dir", str(TINY), "--train-size", "96"]
    assert start(*small, "--batch-size", "32", "--out", str(tmp_path / "out")) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "out/summary.json").read_text())
    assert record["rehearsal"] and "rehearsal" in record["answer"] and record["record"] == 0.5
    assert (tmp_path / "out/error.png").exists() and (tmp_path / "out/plan.json").exists()
