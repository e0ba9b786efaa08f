"""Runs as things: `runs` lists them, `compare` compares them, --json and --csv hand them to programs."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY, contents, fails, main, succeeds, train

from cnnjax import files
from cnnjax.data import load
from cnnjax.deploy.predict import probabilities, trained
from cnnjax.stats.intervals import t_interval, wilson_interval


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs of one epoch."""
    root = tmp_path_factory.mktemp("root") / "runs"
    model = ("--model", "lenet-swish", "--epochs", "1")
    succeeds(*train(root / "a", *model))
    succeeds(*train(root / "b", *model, "--seed", "1", "--learning-rate", "0.01"))
    return root / "a", root / "b"


def as_json(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(main(*arguments, "--json").out)


def as_csv(*arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(main(*arguments, "--csv").out)))


def state(root: Path) -> dict[str, str]:
    return {Path(row["directory"]).name: row["state"] for row in as_json("runs", str(root))}


# runs


def test_runs_lists_runs_with_their_accuracies(pair: tuple[Path, Path]) -> None:
    rows = as_json("runs", str(pair[0].parents[1]))
    assert [row["directory"] for row in rows] == [str(run) for run in pair]
    for row, run in zip(rows, pair, strict=True):
        result = json.loads((run / "result.json").read_text())
        assert (row["kind"], row["model"], row["dataset"]) == ("run", "lenet-swish", "fashion_mnist")
        assert (row["epochs"], row["of_epochs"], row["state"]) == (1, 1, "finished")
        assert row["val_accuracy"] == result["validation"]["accuracy"]
        assert row["test_accuracy"] == result["test"]["accuracy"]
    assert as_json("runs", str(pair[0]))[0]["directory"] == str(pair[0])
    assert "no runs and no experiments" in succeeds("runs", str(pair[0] / "checkpoints" / "epoch-1" / "d"))
    assert "not a directory" in fails(2, "runs", str(pair[0] / "config.json"))


def test_a_run_is_listed_as_what_its_files_prove(pair: tuple[Path, Path], tmp_path: Path) -> None:
    root = shutil.copytree(pair[0].parent, tmp_path / "root")
    shutil.copytree(root / "a", root / ".a.cnnjax-replaced-1")  # hidden, so not listed
    assert state(root) == {"a": "finished", "b": "finished"}
    text = (root / "a" / "result.json").read_text()
    (root / "a" / "result.json").write_text(text.replace('"accuracy": 0.', '"accuracy": 0.9'))
    (root / "b" / "result.json").unlink()
    before = contents(root)
    assert state(root) == {"a": "damaged", "b": "interrupted"}
    assert as_json("runs", str(root))[0]["test_accuracy"] is None
    with files.claimed(root / "b"):
        assert state(root)["b"] == "in progress"
    assert contents(root) == before


def test_experiments_are_listed_too(tmp_path: Path) -> None:
    out = tmp_path / "results" / "pooling"
    out.mkdir(parents=True)
    (out / "protocol.json").write_text(
        json.dumps({"epochs": 2, "dataset": "mnist", "arm a": "", "arm b": ""})
    )
    rows = ["arm,seed,epoch,val_accuracy", *(f"{arm},{seed},1,0.5" for arm in "ab" for seed in (0, 1, 2))]
    (out / "results.csv").write_text("\n".join(rows) + "\n")
    (row,) = as_json("runs", str(tmp_path))
    assert (row["kind"], row["model"], row["epochs"], row["of_epochs"]) == (
        "experiment",
        "2 arms, n=3",
        6,
        12,
    )
    assert row["state"] == "interrupted" and row["test_accuracy"] is None
    (out / "results.csv").write_text("arm,seed,epoch\na,0,7\n")
    assert state(tmp_path) == {"pooling": "damaged"}


# compare


def test_compare_pairs_the_images(pair: tuple[Path, Path]) -> None:
    rows = as_json("compare", *map(str, pair))
    assert {name for name in rows[0] if rows[0][name] != rows[1].get(name)} >= {"seed", "learning_rate"}
    assert "batch_size" not in rows[0] and [row["learning_rate"] for row in rows] == [0.001, 0.01]
    test = load("fashion_mnist", TINY).test
    right = [
        np.argmax(probabilities(trained(run, lambda _: None), test), axis=1) == test.labels for run in pair
    ]
    for row, of in zip(rows, right, strict=True):
        assert row["accuracy"] == of.mean() and row["images"] == len(of)
        assert (row["accuracy_low"], row["accuracy_high"]) == wilson_interval(int(of.sum()), len(of))
    mean, half, _ = t_interval(right[1].astype(float) - right[0])
    assert rows[0]["difference"] is None
    np.testing.assert_allclose(rows[1]["difference"], mean)
    np.testing.assert_allclose(rows[1]["difference_low"], mean - half)
    np.testing.assert_allclose(rows[1]["difference_high"], mean + half)
    printed = succeeds("compare", *map(str, pair))
    assert "learning_rate" in printed and "not other seeds" in printed and "batch_size" not in printed


def test_the_same_run_twice_does_not_differ(pair: tuple[Path, Path]) -> None:
    printed = succeeds("compare", str(pair[0]), str(pair[0]))
    assert "the same settings" in printed and "+0.00 [+0.00, +0.00]" in printed
    assert "two or more" in fails(2, "compare", str(pair[0]))


@pytest.mark.slow
def test_other_images_give_no_difference(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "digits.npz"
    data = load("fashion_mnist", TINY)
    test = data.test.images[::-1]
    np.savez(
        other,
        x_train=data.train.images,
        y_train=data.train.labels,
        x_test=test,
        y_test=data.test.labels[::-1],
    )
    flags = ("--dataset", str(other), "--model", "lenet-swish", "--epochs", "1", "--out", str(tmp_path / "c"))
    succeeds("train", *flags)
    rows = as_json("compare", str(pair[0]), str(tmp_path / "c"))
    assert rows[1]["difference"] is None and rows[0]["data"] != rows[1]["data"]
    assert "No difference is given" in succeeds("compare", str(pair[0]), str(tmp_path / "c"))


# --json and --csv

DATA = ("--dataset", "fashion_mnist", "--data-dir", str(TINY))
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "evaluate": lambda a, b: ["evaluate", str(a)],
    "predict": lambda a, b: ["predict", str(a), "--first", "3"],
    "predict --mc": lambda a, b: ["predict", str(a), "--first", "3", "--mc", "2"],
    "summary": lambda a, b: ["summary"],
    "data": lambda a, b: ["data", *DATA],
    "runs": lambda a, b: ["runs", str(a.parent)],
    "compare": lambda a, b: ["compare", str(a), str(b)],
    "verify": lambda a, b: ["verify", str(a), str(b)],
    "power": lambda a, b: ["power", "--effect", "0.2", "--sd", "0.3"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_json_and_csv_are_the_same_table_and_nothing_else(name: str, pair: tuple[Path, Path]) -> None:
    arguments = COMMANDS[name](*pair)
    rows, same = as_json(*arguments), as_csv(*arguments)
    assert rows and [list(row) for row in rows] == [list(row) for row in same]
    for row, texts in zip(rows, same, strict=True):
        for value, text in zip(row.values(), texts.values(), strict=True):
            shown = (
                "" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)
            )
            assert text == shown
    assert "two formats" in fails(2, *arguments, "--json", "--csv")


def test_the_records_are_what_is_printed(pair: tuple[Path, Path]) -> None:
    rows = as_json("predict", str(pair[0]), "--first", "3")
    labels = load("fashion_mnist", TINY).test.labels[:3]
    assert [row["label"] for row in rows] == list(map(str, labels))
    for row in rows:
        p = {name.removeprefix("p_"): value for name, value in row.items() if name.startswith("p_")}
        assert len(p) == 10 and sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(p, key=lambda name: p[name])
        assert row["probability"] == p[row["predicted"]]
    *classes, total = as_json("evaluate", str(pair[0]))
    assert total["class"] == "all" and total["right"] == sum(row["right"] for row in classes)
    assert sum(row["parameters"] for row in as_json("summary")) == 197_210
    assert [row["examples"] for row in as_json("data", *DATA)] == [160, 40, 50]


def test_a_problem_is_a_record_and_the_exit_code_stays(pair: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(pair[0], tmp_path / "run")
    (run / "curves.png").unlink()
    ended = main("verify", str(run), "--json")
    (row,) = json.loads(ended.out)
    assert ended.code == 1 and "1 of 1" in ended.err
    assert row["problem"] == "curves.png is missing" and not row["whole"] and "--resume" in row["remedy"]


def test_what_is_not_finite_is_null() -> None:
    from cnnjax.cli.formats import Format

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        Format(json=True).write([{"a": np.float32("nan"), "b": np.arange(2), "c": (1.5, float("inf"))}])
    assert json.loads(out.getvalue()) == [{"a": None, "b": [0, 1], "c": [1.5, None]}]
