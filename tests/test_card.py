"""The model card has the numbers of result.json, and no name in it acts as Markdown or HTML."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import Dataset, Loaded
from cnnjax.runs import card
from cnnjax.runs.train_config import TrainConfig
from cnnjax.stats.intervals import wilson_interval

GOLDEN = Path(__file__).parent / "data/golden"
RESULT = json.loads((GOLDEN / "result.json").read_text())


def loaded(name: str = "made", classes: tuple[str, ...] = ("cat", "dog")) -> Loaded:
    images = Dataset(np.zeros((100, 8, 8, 1), np.uint8), np.arange(100, dtype=np.int32) % 2, classes)
    return Loaded(images, images, name, "test", {})


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of all tables by the first cell of the row."""
    cells = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    return {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in cells}


def test_it_has_the_metrics_with_intervals_the_data_and_the_settings() -> None:
    text = card.text(TrainConfig(seed=7), loaded(), RESULT)
    accuracy = RESULT["test"]["accuracy"]
    low, high = wilson_interval(round(100 * accuracy), 100)
    shown = ["100", f"{accuracy:.4f}", f"{low:.4f} to {high:.4f}", f"{RESULT['test']['loss']:.4f}"]
    assert rows(text)["test"] == shown
    assert rows(text)["validation"][0] == "20" and rows(text)["seed"] == ["7"]
    for file, digest in RESULT["data"]["sha256"].items():
        assert rows(text)[card.escaped(file)] == [digest]
    assert f"jax {RESULT['versions']['jax']}" in text and "cat, dog" in text


def test_a_network_from_python_says_what_it_takes_to_load_it() -> None:
    config = TrainConfig(custom={"model": "Mine()", "optimizer": "lion"}, optimizer="custom")
    text = card.text(config, loaded(), RESULT)
    assert 'cnnjax.load("this directory", model=...)' in text
    assert rows(text)["model, defined in Python"] == ["Mine()"]


@given(st.text(max_size=30))
def test_any_name_is_one_line_without_effect(name: str) -> None:
    shown = card.escaped(name)
    assert len(shown.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(\\\\)*[`*\[\]<>|#~&$]", shown)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a | b", "[x](javascript:x)", "a\n# b", "`x`"])
def test_a_hostile_name_stays_in_its_cell(name: str) -> None:
    plain = card.text(TrainConfig(), loaded(), RESULT)
    text = card.text(TrainConfig(), loaded(classes=(name, "dog")), RESULT)
    assert len(text.splitlines()) == len(plain.splitlines())
    assert "<script" not in text.replace("\\<", "")
