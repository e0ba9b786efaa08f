"""The subjects of a report: runs and experiments, read from their directories."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnjax import files
from cnnjax.data import DIGITS, Dataset, load, training_split
from cnnjax.deploy.predict import evaluated, trained
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.results import Cell, Predictions, Row, read_predictions, read_rows
from cnnjax.models import ConvNet
from cnnjax.runs import run_directory
from cnnjax.runs.config import TrainConfig
from cnnjax.runs.programs import Evaluation

Announce = Callable[[str], None]
OTHER_DATA = "the data set differs from the one of {}; give the right one with --data-dir"
SENTENCES = ("protocol", "conclusion", "3 and 5", "answers")

GARMENTS = "T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
CLASSES: Mapping[str, tuple[str, ...]] = {
    "mnist": DIGITS,
    "fashion_mnist": tuple(GARMENTS.split(", ")),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
Record = tuple[tuple[str, ...], dict[str, Any]]
"""A dictionary inside summary.json, and the keys that lead to it."""


class Run(NamedTuple):
    """A training run, with its network evaluated on the test images."""

    name: str
    config: TrainConfig
    history: list[dict[str, float]]
    result: dict[str, Any] | None  # result.json; None if the run is not finished
    model: ConvNet
    params: Any
    train_images: int
    val_images: int
    test: Dataset
    tested: Evaluation


class Experiment(NamedTuple):
    """The contents of an experiment's directory."""

    name: str
    finished: bool
    sentences: dict[tuple[str, ...], str]  # by their keys in summary.json
    comparisons: list[Record]  # with arms and contrasts: the fields of `stats.Arm` and `stats.Contrast`
    reproductions: list[Record]  # with published, n, mean, sd, low, high and within
    rows: dict[Cell, Row]  # empty if results.csv is not a table of arms, seeds and epochs
    predictions: dict[str, Predictions]  # by arm
    test: Dataset | None  # the images of `predictions`
    figures: dict[str, bytes]  # PNG by file name
    protocol: dict[str, Any]


def read(path: Path, data_dir: Path | None, announce: Announce) -> Run | Experiment:
    """Read a run or an experiment from its directory.

    Raises:
        ArgumentError: it is neither, or the data set is not its own.
        UserError: its files are damaged, or the data set is not available.
    """
    if (path / run_directory.CHECKPOINTS).is_dir() or (path / "config.json").exists():
        return _run(path, data_dir, announce)
    if any((path / name).exists() for name in ("results.csv", "summary.json", "protocol.json")):
        return _experiment(path, data_dir, announce)
    raise ArgumentError(
        f"{path} is neither a run nor an experiment; give the --out directory of a train command or of an "
        "experiment"
    )


def _run(path: Path, data_dir: Path | None, announce: Announce) -> Run:
    network = trained(path, announce)
    config = network.config
    _refuse_own_data(path, config.dataset)
    loaded = load(config.dataset, data_dir or network.data_dir, announce=announce)
    result = files.read_json(path / "result.json")
    if result is not None:
        data = result.get("data")
        _check_data(path, data.get("sha256") if isinstance(data, dict) else None, loaded.sha256)
    train, val = training_split(loaded, config.train_split)
    return Run(
        name=path.resolve().name,
        config=config,
        history=_history(path)[: network.epochs],
        result=result,
        model=network.convnet,
        params=network.params,
        train_images=len(train.labels),
        val_images=len(val.labels),
        test=loaded.test,
        tested=evaluated(network, loaded.test),
    )


def _refuse_own_data(path: Path, dataset: str) -> None:
    if dataset not in CLASSES:
        raise ArgumentError(
            f"{path} is of the data set {dataset}; the report shows only {', '.join(CLASSES)}: leave it out"
        )


def _history(run: Path) -> list[dict[str, float]]:
    path = run / "history.csv"
    try:
        with path.open(newline="") as file:
            rows = [
                {name: float(row[name]) for name in run_directory.COLUMNS} for row in csv.DictReader(file)
            ]
        if not rows:
            raise ValueError("no rows")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        advice = f"python -m cnnjax train --resume --out {run} restores it"
        raise UserError(f"{path} is damaged ({error}); {advice}") from None
    return rows


def _experiment(path: Path, data_dir: Path | None, announce: Announce) -> Experiment:
    summary = files.read_json(path / "summary.json")
    protocol = files.read_json(path / "protocol.json") or {}
    records = list(_records(summary or {}))
    rows = _rows(path / "results.csv")
    arms = list(dict.fromkeys(arm for arm, _, _ in rows))
    seeds = sorted({seed for _, seed, _ in rows})
    stored = {arm: read_predictions(path, arm, seeds) for arm in arms}
    predictions = {arm: of_arm for arm, of_arm in stored.items() if of_arm is not None}
    test = None
    if predictions:
        dataset = str(protocol.get("dataset", "mnist"))
        _refuse_own_data(path, dataset)
        loaded = load(dataset, data_dir, announce=announce)
        _check_data(path, protocol.get("data"), loaded.sha256)
        test = loaded.test
        if any(of_arm.labels.shape[1:] != test.labels.shape for of_arm in predictions.values()):
            raise ArgumentError(OTHER_DATA.format(path))
    try:
        figures = {file.name: file.read_bytes() for file in sorted(path.glob("*.png"))}
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    return Experiment(
        name=path.resolve().name,
        finished=summary is not None,
        sentences=dict(_sentences(records)),
        comparisons=list(_comparisons(path / "summary.json", records)),
        reproductions=list(_reproductions(path / "summary.json", records)),
        rows=rows,
        predictions=predictions,
        test=test,
        figures=figures,
        protocol=protocol,
    )


def _rows(path: Path) -> dict[Cell, Row]:
    """Read a table of arms, seeds and epochs; tables with other columns give no rows."""
    try:
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return read_rows(path) if header[:3] == ["arm", "seed", "epoch"] else {}


def _records(record: dict[str, Any], keys: tuple[str, ...] = ()) -> Iterator[Record]:
    """Iterate over a summary and every dictionary inside it."""
    yield keys, record
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _records(value, (*keys, name))


def _comparisons(path: Path, records: Sequence[Record]) -> Iterator[Record]:
    for keys, record in records:
        arms, contrasts = record.get("arms"), record.get("contrasts")
        if isinstance(arms, list) and isinstance(contrasts, list):
            _check(path, arms, {"name": str, "n": int}, ("mean", "sd"))
            _check(path, contrasts, {"arm": str}, ("difference", "low", "high", "p", "p_holm"))
            yield keys, record


def _reproductions(path: Path, records: Sequence[Record]) -> Iterator[Record]:
    for keys, record in records:
        if {"published", "mean", "within"} <= record.keys():
            _check(path, [record], {"n": int}, ("published", "mean", "sd", "low", "high"))
            yield keys, record


def _check(path: Path, records: Sequence[Any], kinds: dict[str, type], numbers: Sequence[str]) -> None:
    for record in records:
        whole = isinstance(record, dict) and all(isinstance(record.get(k), t) for k, t in kinds.items())
        if not whole or not all(isinstance(record.get(k), int | float | None) for k in numbers):
            raise UserError(f"{path} is damaged: some fields are missing or wrong; run the experiment again")


def _sentences(records: Sequence[Record]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Iterate over the texts of a summary that are written for readers."""
    for keys, record in records:
        for name, value in record.items():
            if isinstance(value, str) and (name in SENTENCES or keys[-1:] == ("answers",)):
                yield (*keys, name), value


def _check_data(path: Path, expected: Any, sums: Mapping[str, str]) -> None:
    if isinstance(expected, dict) and expected != dict(sums):
        raise ArgumentError(OTHER_DATA.format(path))
