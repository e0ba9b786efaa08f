"""--mlflow: MLflow's own client holds each epoch once, however often a run is resumed."""

import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import fails, history, main, succeeds, train

from cnnjax.cli import tracking
from cnnjax.errors import UserError

FLAGS = ("--model", "lenet-swish", "--mlflow", "--epochs")


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow with an empty database."""
    client = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    client.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return client


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of its dependencies
def test_each_epoch_is_there_once(mlflow: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(*train(run, *FLAGS, "1")).code == 0
    assert main(*train(run, *FLAGS, "3", "--resume")).code == 0
    assert main(*train(run, *FLAGS, "3", "--resume")).code == 0  # there is nothing to do
    (entry,) = mlflow.search_runs(output_format="list")
    for column, name in enumerate(("loss", "accuracy", "val_loss", "val_accuracy"), 1):
        sent = mlflow.MlflowClient().get_metric_history(entry.info.run_id, name)
        assert [(metric.step, metric.value) for metric in sent] == [
            (int(row[0]), float(row[column])) for row in history(run)[1:]
        ]
    assert entry.data.params["model"] == "lenet-swish" and entry.info.status == "FINISHED"
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(entry.info.run_id)}
    assert {"model_card.md", "curves.png", "result.json", "history.csv"} <= files
    assert main(*train(run, *FLAGS, "1", "--overwrite")).code == 0
    assert len(mlflow.search_runs(output_format="list")) == 2


class Broken:
    """An MLflow whose server has gone."""

    def start_run(self, **_: object) -> None:
        raise OSError("no route to host")


def test_training_goes_on_without_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "require_mlflow", Broken)
    printed = succeeds(*train(tmp_path / "run", *FLAGS, "2"))
    assert printed.count("MLflow gets no more of this run: no route to host") == 1
    assert len(history(tmp_path / "run")) == 3


def test_without_mlflow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert "cnnjax[mlflow]" in fails(1, *train(tmp_path / "run", *FLAGS, "1"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="--mlflow"):
        tracking.require_mlflow()
