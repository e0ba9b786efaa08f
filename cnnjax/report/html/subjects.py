"""The subjects of a report: runs and experiments, read from their directories."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from cnnjax import files
from cnnjax.data import DIGITS, NAMES, Dataset, Loaded, is_identity, load, training_split
from cnnjax.data.loading import MEMORY
from cnnjax.deploy.predict import evaluated, trained
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment.plans import analysed
from cnnjax.experiment.predictions import read_predictions
from cnnjax.experiment.results import Predictions
from cnnjax.experiment.rows import Cell, Row, read_rows
from cnnjax.files.misspelt import did_you_mean
from cnnjax.report.html import records
from cnnjax.report.html.records import Record
from cnnjax.runs import result, run_directory
from cnnjax.runs.programs import Evaluation
from cnnjax.runs.train_config import TrainConfig

Announce = Callable[[str], None]

GARMENTS = "T-shirt, trousers, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
CLASSES: Mapping[str, tuple[str, ...]] = {
    "mnist": DIGITS,
    "fashion_mnist": tuple(GARMENTS.split(", ")),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}


class Run(NamedTuple):
    """A training run, with its network evaluated on the test images."""

    name: str
    config: TrainConfig
    history: list[dict[str, float]]
    result: dict[str, Any] | None  # result.json; None if the run is not finished
    model: nn.Module
    params: Any
    train_images: int
    val_images: int
    test: Dataset
    tested: Evaluation
    best: int | None = None  # the epoch of the network, where --stop-early chose it; else it is the last

    @property
    def dataset(self) -> str:
        """The name of the data set, or its path."""
        return self.config.dataset

    @property
    def nats(self) -> bool:
        """Whether losses are cross-entropies, not values of a loss of the user's own."""
        return "loss" not in self.config.custom

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return CLASSES.get(self.dataset, self.test.class_names)


class Experiment(NamedTuple):
    """The contents of an experiment's directory."""

    name: str
    finished: bool
    sentences: dict[tuple[str, ...], str]  # by their keys in summary.json
    hypotheses: list[str]  # each with when it was stated
    comparisons: list[Record]  # with arms and contrasts: the fields of `stats.Arm` and `stats.Contrast`
    crossed: list[Record]  # by arm: the fields of `stats.crossed.Crossed`
    reproductions: list[Record]  # with published, n, mean, sd, low, high and within
    rows: dict[Cell, Row]  # empty if results.csv is not a table of arms, seeds and epochs
    predictions: dict[str, Predictions]  # by arm
    test: Dataset | None  # the images of `predictions`; None without any, and for arrays that were in memory
    figures: dict[str, bytes]  # PNG by file name
    protocol: dict[str, Any]
    origin: dict[str, Any]  # the entries of summary.json about versions, devices and data

    @property
    def dataset(self) -> str:
        """The name of the data set, or its path."""
        return str(self.protocol.get("dataset", "mnist"))

    @property
    def nats(self) -> bool:
        """Whether losses are cross-entropies, not values of a loss of the user's own."""
        arms = (str(text) for name, text in self.protocol.items() if name.startswith("arm "))
        return not any(" loss=" in text for text in arms)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by label; of arrays that were in memory they are not known."""
        return CLASSES.get(self.dataset, () if self.test is None else self.test.class_names)


def read(path: Path, data_dir: Path | None, announce: Announce) -> Run | Experiment:
    """Read a run or an experiment from its directory.

    Raises:
        ArgumentError: it is neither, or the data set is not its own.
        UserError: its files are damaged, or the data set is not available.
    """
    if _holds_run(path):
        return _run(path, data_dir, announce)
    if _holds_experiment(path):
        return _experiment(path, data_dir, announce)
    near = did_you_mean(path, lambda each: _holds_run(each) or _holds_experiment(each))
    raise ArgumentError(
        f"{path} is neither a run nor an experiment{near}; give the --out directory of a train command or of "
        "an experiment"
    )


def _holds_run(path: Path) -> bool:
    return (path / run_directory.CHECKPOINTS).is_dir() or (path / "config.json").exists()


def _holds_experiment(path: Path) -> bool:
    return any((path / name).exists() for name in ("results.csv", "summary.json", "protocol.json"))


def _run(path: Path, data_dir: Path | None, announce: Announce) -> Run:
    network = trained(path, announce)
    config = network.config
    if config.dataset.startswith(MEMORY):
        raise ArgumentError(
            f"{path} was trained on arrays in memory, which a report cannot read; save them with np.savez, "
            "and train with --dataset FILE.npz"
        )
    loaded = _load(path, config.dataset, data_dir or network.data_dir, network.sha256, announce)
    train, val = training_split(loaded, config.train_split)
    return Run(
        name=path.resolve().name,
        config=config,
        history=network.history,
        result=result.read(path),
        model=network.task.model,
        params=network.params,
        train_images=len(train.labels),
        val_images=len(val.labels),
        test=loaded.test,
        tested=evaluated(network, loaded.test),
        best=network.epochs if config.stop_early else None,
    )


def _load(path: Path, dataset: str, data_dir: Path | None, sums: Any, announce: Announce) -> Loaded:
    """Load a data set, and check that it has these SHA-256 sums; `data_dir` is for those of IDX files."""
    loaded = load(dataset, data_dir if dataset in NAMES else None, announce=announce)
    if isinstance(sums, dict) and sums != loaded.sha256:
        raise _other_data(path, dataset)
    return loaded


def _other_data(path: Path, dataset: str) -> ArgumentError:
    advice = "give the right one with --data-dir" if dataset in NAMES else f"restore {dataset}"
    return ArgumentError(f"the data set differs from the one of {path}; {advice}")


def _experiment(path: Path, data_dir: Path | None, announce: Announce) -> Experiment:
    summary = files.read_json(path / "summary.json")
    protocol = files.read_json(path / "protocol.json") or {}
    found = list(records.walk(summary or {}))
    rows = analysed(path, _rows(path / "results.csv"))
    arms = list(dict.fromkeys(arm for arm, _, _ in rows))
    seeds = sorted({seed for _, seed, _ in rows})
    stored = {arm: read_predictions(path, arm, seeds) for arm in arms}
    predictions = {arm: of_arm for arm, of_arm in stored.items() if of_arm is not None}
    try:
        pictures = (file for file in sorted(path.glob("*.png")) if not file.is_symlink())
        figures = {file.name: file.read_bytes() for file in pictures}
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    made = Experiment(
        name=path.resolve().name,
        finished=summary is not None,
        sentences=dict(records.sentences(found)),
        hypotheses=list(dict.fromkeys(records.hypotheses(found))),
        comparisons=list(records.comparisons(path / "summary.json", found)),
        crossed=list(records.crossed(path / "summary.json", found)),
        reproductions=list(records.reproductions(path / "summary.json", found)),
        rows=rows,
        predictions=predictions,
        test=None,
        figures=figures,
        protocol=protocol,
        origin=records.origin(found),
    )
    return made._replace(test=_test(path, made, data_dir, announce))


def _test(path: Path, experiment: Experiment, data_dir: Path | None, announce: Announce) -> Dataset | None:
    """Return the images of the predictions; None if there are none, or where the data set is not at hand."""
    dataset = experiment.dataset
    if not experiment.predictions:
        return None
    try:
        test = _load(path, dataset, data_dir, experiment.protocol.get("data"), announce).test
    except ArgumentError:
        if is_identity(dataset) and not dataset.startswith(MEMORY):
            raise
        return None  # no file has the name of the arrays, or another one has it by chance
    except UserError as error:
        if data_dir is not None:
            raise
        if is_identity(dataset):
            announce(f"the report leaves out the images of mistakes: {error}")
        return None
    if any(of_arm.labels.shape[1:] != test.labels.shape for of_arm in experiment.predictions.values()):
        raise _other_data(path, dataset)
    return test


def _rows(path: Path) -> dict[Cell, Row]:
    """Read a table of arms, seeds and epochs; tables with other columns give no rows."""
    first = next(iter(files.read_csv(path) or ()), {})
    return read_rows(path) if list(first)[:3] == ["arm", "seed", "epoch"] else {}
