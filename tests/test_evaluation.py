"""`evaluate` measures accuracy on a whole split, by class, with intervals."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY, contents, fails, history, rename, succeeds, train
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import load
from cnnjax.deploy.evaluation import scores, share
from cnnjax.deploy.predict import trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "run"
    succeeds(*train(out, "--epochs", "2", "--model", "lenet-swish", "--batch-size", "8"))
    return out


def last(printed: str) -> dict[str, float]:
    match = re.fullmatch(
        r"loss (?P<loss>\S+), accuracy (?P<accuracy>\S+) \[(?P<low>\S+), (?P<high>\S+)\], n = (?P<n>\S+)",
        printed.splitlines()[-1],
    )
    assert match, printed
    return {name: float(text.replace(",", "")) for name, text in match.groupdict().items()}


def rows(printed: str) -> list[list[str]]:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
    return [row for row in cells if len(row) == 5]


@pytest.mark.slow
def test_the_test_split_matches_the_results_of_the_run(run: Path) -> None:
    before = contents(run)
    printed = succeeds("evaluate", str(run))
    result, recorded = last(printed), json.loads((run / "result.json").read_text())["test"]
    assert result["n"] == 50
    assert result["loss"] == pytest.approx(recorded["loss"], abs=5e-5)
    assert result["accuracy"] == pytest.approx(recorded["accuracy"], abs=5e-5)
    assert result["low"] < result["accuracy"] < result["high"]
    assert contents(run) == before


def test_the_validation_split_matches_the_last_epoch(run: Path) -> None:
    result, last_epoch = last(succeeds("evaluate", str(run), "--split", "validation")), history(run)[-1]
    assert result["n"] == 40
    assert result["loss"] == pytest.approx(float(last_epoch[3]), abs=5e-5)
    assert result["accuracy"] == pytest.approx(float(last_epoch[4]), abs=5e-5)


def test_the_train_split_is_the_part_used_in_training(run: Path) -> None:
    assert last(succeeds("evaluate", str(run), "--split", "train"))["n"] == 160


def test_the_classes_add_up(run: Path) -> None:
    table = rows(succeeds("evaluate", str(run)))
    assert [row[0] for row in table] == [*"0123456789", "all"]
    counts = np.array([[int(row[1]), int(row[2])] for row in table])
    np.testing.assert_array_equal(counts[:-1].sum(axis=0), counts[-1])
    for row, (images, right) in zip(table, counts, strict=True):
        assert float(row[3]) == pytest.approx(right / images, abs=5e-5)


def test_classes_without_images_are_omitted(run: Path) -> None:
    network = trained(run, announce=lambda _: None)
    test = load("fashion_mnist", TINY).test
    few = test.labels <= 1
    result = scores(network, test._replace(images=test.images[few], labels=test.labels[few]))
    assert set(result.classes) == {0, 1}
    assert result.total.n == few.sum() == sum(part.n for part in result.classes.values())


def test_a_run_without_a_validation_split(run: Path, tmp_path: Path) -> None:
    rename(shutil.copytree(run, tmp_path / "run"), train_split="all")
    assert "no validation split" in fails(2, "evaluate", str(tmp_path / "run"), "--split", "validation")
    assert last(succeeds("evaluate", str(tmp_path / "run"), "--split", "train"))["n"] == 200


def test_a_wrong_argument_is_a_one_line_error(run: Path, tmp_path: Path) -> None:
    assert "split" in fails(2, "evaluate", str(run), "--split", "all")
    assert "holds no run" in fails(2, "evaluate", str(tmp_path))
    assert "--data-dir" in fails(1, "evaluate", str(run), "--data-dir", str(tmp_path / "none"))


@given(st.integers(1, 100_000), st.data())
def test_the_interval_inverts_the_score_test(n: int, data: st.DataObject) -> None:
    """Wilson: all p for which right / n is within 1.96 standard errors sqrt(p (1 - p) / n) of p."""
    right = data.draw(st.integers(0, n))
    result, z = share(right, n), 1.959963984540054
    assert 0 <= result.low <= result.accuracy <= result.high <= 1
    for end in {result.low, result.high} - {0.0, 1.0}:
        assert abs(result.accuracy - end) == pytest.approx(
            z * np.sqrt(end * (1 - end) / n), rel=1e-4, abs=1e-7
        )
    mirrored = share(n - right, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - result.high, 1 - result.low), abs=1e-9)


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    for p in (0.02, 0.5, 0.985):
        held = [
            result.low <= p <= result.high
            for result in (share(int(k), 500) for k in rng.binomial(500, p, 600))
        ]
        # Counts are discrete, so coverage is only near 95%; 600 trials have a standard error of 0.9%.
        assert 0.92 < np.mean(held) < 0.985
