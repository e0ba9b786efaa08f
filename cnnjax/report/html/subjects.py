"""What a report is about: runs and experiments, read from their directories."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax import files
from cnnjax.config import TrainConfig
from cnnjax.data import Dataset, load, training_split
from cnnjax.deploy.predict import trained
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.results import PREDICTIONS, Cell, Predictions, Row, read_predictions, read_rows
from cnnjax.models import ConvNet
from cnnjax.runs import programs, run_directory
from cnnjax.runs.programs import Evaluation

Announce = Callable[[str], None]

CLASSES: Mapping[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt",
        "trousers",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}


class Run(NamedTuple):
    """A run, and what its network says of the test images."""

    name: str
    config: TrainConfig
    history: list[dict[str, float]]
    result: dict[str, Any] | None  # result.json, of a run that is finished
    model: ConvNet
    params: Any
    train_images: int
    val_images: int
    test: Dataset
    tested: Evaluation


class Finding(NamedTuple):
    """One comparison of a summary.json: dictionaries with the fields of `stats.Arm` and `stats.Contrast`."""

    place: tuple[str, ...]  # the keys that lead to it
    arms: list[dict[str, Any]]
    contrasts: list[dict[str, Any]]


class Reproduced(NamedTuple):
    """A published value beside many of ours: a record with published, n, mean, sd, low, high and within."""

    place: tuple[str, ...]
    record: dict[str, Any]


class Experiment(NamedTuple):
    """What an experiment left behind."""

    name: str
    finished: bool
    sentences: dict[tuple[str, ...], str]
    findings: list[Finding]
    reproduced: list[Reproduced]
    rows: dict[Cell, Row]  # empty where results.csv is not a table of arms, seeds and epochs
    predictions: dict[str, Predictions]
    test: Dataset | None  # the images of `predictions`
    figures: dict[str, bytes]  # PNG by file name
    protocol: dict[str, Any]


def read(path: Path, data_dir: Path | None, announce: Announce) -> Run | Experiment:
    """What the directory holds.

    Raises:
        ArgumentError: neither a run nor an experiment, or not its data.
        UserError: its files are damaged, or the data cannot be had.
    """
    if (path / run_directory.CHECKPOINTS).is_dir() or (path / "config.json").exists():
        return _run(path, data_dir, announce)
    if any((path / name).exists() for name in ("results.csv", "summary.json", "protocol.json")):
        return _experiment(path, data_dir, announce)
    raise ArgumentError(
        f"{path} holds neither a run nor an experiment; name the --out directory of a train command or of an "
        "experiment"
    )


def _run(path: Path, data_dir: Path | None, announce: Announce) -> Run:
    network = trained(path, announce)
    config = network.config
    loaded = load(config.dataset, data_dir or network.data_dir, announce=announce)
    result = files.read_json(path / "result.json")
    if result is not None:
        _same_data(path, _entry(result.get("data"), "sha256"), loaded.sha256)
    train, val = training_split(loaded, config.train_split)
    return Run(
        name=path.resolve().name,
        config=config,
        history=_history(path)[: network.epochs],
        result=result,
        model=programs.network(config),
        params=network.params,
        train_images=len(train.labels),
        val_images=len(val.labels),
        test=loaded.test,
        tested=programs.evaluate_on(config, network.params, loaded.test),
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
        advice = f"python -m cnnjax train --resume --out {run} writes it again"
        raise UserError(f"{path} is damaged ({error}); {advice}") from None
    return rows


def _experiment(path: Path, data_dir: Path | None, announce: Announce) -> Experiment:
    summary = files.read_json(path / "summary.json")
    protocol = files.read_json(path / "protocol.json") or {}
    rows = _rows(path / "results.csv")
    arms = list(dict.fromkeys(arm for arm, _, _ in rows))
    seeds = sorted({seed for _, seed, _ in rows})
    known = {arm: read_predictions(path, arm, seeds) for arm in arms} if (path / PREDICTIONS).exists() else {}
    predictions = {arm: said for arm, said in known.items() if said is not None}
    test = None
    if predictions:
        loaded = load(str(protocol.get("dataset", "mnist")), data_dir, announce=announce)
        _same_data(path, protocol.get("data"), loaded.sha256)
        test = loaded.test
        for said in predictions.values():
            if said.labels.shape[1:] != test.labels.shape:
                raise ArgumentError(f"the data are not those of {path}; give theirs with --data-dir")
    try:
        figures = {file.name: file.read_bytes() for file in sorted(path.glob("*.png"))}
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    return Experiment(
        name=path.resolve().name,
        finished=summary is not None,
        sentences=dict(_sentences(summary or {})),
        findings=list(_findings(path / "summary.json", summary or {})),
        reproduced=list(_reproduced(path / "summary.json", summary or {})),
        rows=rows,
        predictions=predictions,
        test=test,
        figures=figures,
        protocol=protocol,
    )


def _rows(path: Path) -> dict[Cell, Row]:
    """Those of a table of arms, seeds and epochs; other tables are an experiment's own affair."""
    try:
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return read_rows(path) if header[:3] == ["arm", "seed", "epoch"] else {}


def _findings(path: Path, record: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Every comparison in a summary, wherever it is."""
    arms, contrasts = record.get("arms"), record.get("contrasts")
    if isinstance(arms, list) and isinstance(contrasts, list):
        _check(path, arms, {"name": str, "n": int}, ("mean", "sd"))
        _check(path, contrasts, {"arm": str}, ("difference", "low", "high", "p", "p_holm"))
        yield Finding(place, arms, contrasts)
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _findings(path, value, (*place, name))


def _reproduced(path: Path, record: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[Reproduced]:
    if {"published", "mean", "within"} <= record.keys():
        _check(path, [record], {"n": int}, ("published", "mean", "sd", "low", "high"))
        yield Reproduced(place, record)
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _reproduced(path, value, (*place, name))


def _check(path: Path, records: Sequence[Any], kinds: dict[str, type], numbers: Sequence[str]) -> None:
    for record in records:
        whole = isinstance(record, dict) and all(isinstance(record.get(k), t) for k, t in kinds.items())
        if not whole or not all(isinstance(record.get(k), int | float | None) for k in numbers):
            raise UserError(f"{path} is damaged: not what an experiment writes; run the experiment again")


TOLD = ("protocol", "conclusion", "3 and 5", "answers")


def _sentences(record: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The sentences of a summary that are written for readers."""
    for name, value in record.items():
        if isinstance(value, str) and (name in TOLD or place[-1:] == ("answers",)):
            yield (*place, name), value
        elif isinstance(value, dict):
            yield from _sentences(value, (*place, name))


def _same_data(path: Path, was: Any, sums: Mapping[str, str]) -> None:
    if isinstance(was, dict) and was != dict(sums):
        raise ArgumentError(f"the data are not those of {path}; give theirs with --data-dir")


def _entry(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else None


def examples(test: Dataset) -> np.ndarray:
    """i64[k]: the place of the first image of each class."""
    return np.unique(test.labels, return_index=True)[1]
