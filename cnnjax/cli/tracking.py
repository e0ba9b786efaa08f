"""Runs in MLflow, by its own client: settings, a metric per epoch, the final metrics and the files.

Where they go is for MLflow to know, as from MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from cnnjax.errors import UserError, one_line

TAG = "cnnjax.directory"
"""Tag of a run in MLflow: a digest of its directory, by which a resumed run is found."""


def require_mlflow() -> Any:
    """Return MLflow; raise `UserError` if it is not installed."""
    try:
        import mlflow  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    except ImportError as error:
        raise UserError(f"--mlflow needs an extra: pip install 'cnnjax[mlflow]' ({error})") from error
    return mlflow


class Tracker:
    """Hands the epochs and files of a run to MLflow.

    Each epoch is there once, however often a run is resumed. If MLflow fails, that is announced once, and the
    training goes on.
    """

    def __init__(
        self, run: Path, settings: Mapping[str, Any], resume: bool, announce: Callable[[str], None]
    ) -> None:
        """Begin at the first epoch, so that a run that is refused leaves nothing.

        Args:
            run: the run directory.
            settings: by name.
            resume: go on with what an earlier start of this run sent.
            announce: called with a line about a failure.
        """
        self._mlflow = require_mlflow()
        self._run, self._settings, self._resume, self._announce = run, settings, resume, announce
        self._id: str | None = None  # of the run in MLflow
        self._sent: set[int] = set()  # epochs
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Set the state of the run in MLflow."""
        if self._id is not None:
            self._attempt(self._mlflow.end_run, "KILLED" if error else "FINISHED")

    def epoch(self, row: Mapping[str, float], _: object = None) -> None:
        """Send the row of an epoch."""
        self._attempt(self._epoch, row)

    def finish(self, record: Mapping[str, Any]) -> None:
        """Send the test metrics in result.json, and the files of the run."""
        if self._id is not None:  # else it had finished before
            self._attempt(self._finish, record)

    def _attempt(self, send: Callable[..., object], *arguments: object) -> None:
        if self._failed:
            return
        try:
            send(*arguments)
        except Exception as error:
            self._failed = True
            self._announce(f"MLflow gets no more of this run: {one_line(error)}")

    def _epoch(self, row: Mapping[str, float]) -> None:
        if self._id is None:
            self._begin()
        step = int(row["epoch"])
        if step not in self._sent:
            metrics = {name: float(value) for name, value in row.items() if name != "epoch"}
            self._mlflow.log_metrics(metrics, step=step)

    def _finish(self, record: Mapping[str, Any]) -> None:
        self._mlflow.log_metrics({f"test_{name}": value for name, value in record["test"].items()})
        for path in sorted(path for path in self._run.iterdir() if path.is_file()):
            self._mlflow.log_artifact(str(path))

    def _begin(self) -> None:
        directory = hashlib.sha256(str(self._run.absolute()).encode()).hexdigest()
        sought = {"filter_string": f"tags.`{TAG}` = '{directory}'", "output_format": "list", "max_results": 1}
        found = self._resume and self._mlflow.search_runs(**sought)
        if found:
            self._id = self._mlflow.start_run(run_id=found[0].info.run_id).info.run_id
            history = self._mlflow.MlflowClient().get_metric_history(self._id, "val_loss")
            self._sent = {metric.step for metric in history}
        else:
            tags = {TAG: directory}
            self._id = self._mlflow.start_run(run_name=self._run.name, tags=tags).info.run_id
            self._mlflow.log_params({n: value for n, value in self._settings.items() if value is not None})
