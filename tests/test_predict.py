"""`predict` shows what the trained network says, with the labels beside."""

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from runs import TINY, Ended, compiled_once, succeeds, train

from cnnjax import command
from cnnjax.cli_predict import Predict
from cnnjax.data import load
from cnnjax.predict import probabilities, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("predict") / "run"
    with compiled_once(tmp_path_factory.mktemp("programs")):
        succeeds(*train(out, "--epochs", "2", "--model", "lenet-swish", "--batch-size", "8"))
        yield out


def main(*arguments: str) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = command.run({"predict": Predict, "other": Predict}, "", ["predict", *arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def rows(printed: str) -> list[list[str]]:
    cells = ([cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line)
    return [row for row in cells if len(row) == 13]


def test_the_table_has_the_first_training_images(run: Path) -> None:
    ended = main(str(run))
    assert (ended.code, ended.err) == (0, "")
    table = rows(ended.out)
    data = load("fashion_mnist", TINY, announce=lambda _: None).train
    assert [row[0] for row in table] == list("01234")
    assert [int(row[11]) for row in table] == data.labels[:5].tolist()
    shares = np.array([[float(cell) for cell in row[1:11]] for row in table])
    assert all(re.fullmatch(r"[01]\.\d\d", cell) for row in table for cell in row[1:11])
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=10 * 0.005)
    for row, share in zip(table, shares, strict=True):
        assert share[int(row[12])] == share.max()


def test_the_probabilities_are_those_that_the_run_ended_with(run: Path) -> None:
    import json

    network = trained(run, announce=lambda _: None)
    test = load("fashion_mnist", TINY, announce=lambda _: None).test
    said = probabilities(network, test)
    assert network.epochs == 2
    recorded = json.loads((run / "result.json").read_text())["test"]
    assert np.mean(said.argmax(axis=1) == test.labels) == pytest.approx(recorded["accuracy"])
    loss = -np.log(said[np.arange(len(test.labels)), test.labels]).mean()
    assert loss == pytest.approx(recorded["loss"], rel=1e-4)


def test_mistakes_are_named_and_drawn(run: Path) -> None:
    ended = main(str(run), "--mistakes", "--first", "2", "--split", "test")
    assert ended.code == 0, ended
    assert "this network confuses 3 and 5 in" in ended.out
    assert (run / "confused.png").read_bytes().startswith(b"\x89PNG")
    assert len(rows(ended.out)) == 2


@pytest.mark.parametrize(
    ("flags", "word"),
    [(("--first", "0"), "at least 1"), (("--first", "100000"), "there are"), (("--split", "all"), "split")],
)
def test_a_wrong_argument_is_one_line(flags: tuple[str, ...], word: str, run: Path) -> None:
    ended = main(str(run), *flags)
    assert ended.code == 2 and word in ended.err and ended.err.count("\n") == 1, ended


def test_a_directory_without_a_run(tmp_path: Path) -> None:
    ended = main(str(tmp_path))
    assert ended.code == 2 and "holds no run" in ended.err
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    ended = main(str(tmp_path))
    assert ended.code == 1 and "--resume" in ended.err
