"""--tensorboard: event files with Keras's names that hold each epoch once, however often a run is resumed."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import contents, fails, history, succeeds, train

from cnnjax.errors import UserError
from cnnjax.runs import event_files, run_directory

loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")

Scalars = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("events") / "run"
    succeeds(*train(out, "--epochs", "3", "--model", "lenet-swish", "--tensorboard"))
    return out


def scalars(run: Path, part: str) -> Scalars:
    """Return what TensorBoard reads in the event file of a part: tag -> [(step, value), ...]."""
    (path,) = (run / "tensorboard" / part).iterdir()
    read: Scalars = {}
    for event in loader.LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            read.setdefault(value.tag, []).append((event.step, value.simple_value))
    return read


def expected(run: Path, part: str) -> dict[str, Any]:
    columns = {"train": (1, 2), "validation": (3, 4)}[part]
    rows = history(run)[1:]
    return {
        f"epoch_{name}": [(step, pytest.approx(float(row[column]))) for step, row in enumerate(rows)]
        for name, column in zip(("loss", "accuracy"), columns, strict=True)
    }


def assert_whole(run: Path) -> None:
    for part in ("train", "validation"):
        assert scalars(run, part) == expected(run, part)


def test_each_epoch_is_there_under_the_names_that_keras_gives(done: Path) -> None:
    assert_whole(done)
    assert {path.name for path in (done / "tensorboard").iterdir()} == {"train", "validation"}
    assert len(history(done)) == 4


def test_a_run_that_goes_on_has_no_step_twice(done: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    resume = [*train(run, "--model", "lenet-swish", "--resume", "--tensorboard"), "--epochs"]
    succeeds(*resume, "4")
    assert len(history(run)) == 5
    assert_whole(run)
    # As if killed before the last checkpoint and while it wrote an event.
    shutil.rmtree(run / "checkpoints" / "epoch-4")
    (path,) = (run / "tensorboard" / "train").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    succeeds(*resume, "5")
    assert len(history(run)) == 6
    assert_whole(run)


def test_a_run_that_had_none_gets_all_epochs(tmp_path: Path) -> None:
    arguments = [*train(tmp_path / "run", "--model", "lenet-swish"), "--epochs"]
    succeeds(*arguments, "1")
    assert not (tmp_path / "run" / "tensorboard").exists()
    succeeds(*arguments, "2", "--resume", "--tensorboard")
    assert_whole(tmp_path / "run")


def test_a_run_that_is_replaced_leaves_no_events_of_the_old_one(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    succeeds(*train(tmp_path / "run", "--model", "lenet-swish", "--epochs", "1", "--overwrite"))
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_old_epochs_keep_their_distance_in_time(tmp_path: Path) -> None:
    rows = [
        {"epoch": i, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "seconds": 10.0 * i}
        for i in (1, 2, 3)
    ]
    event_files.begin(tmp_path, rows)
    (path,) = (tmp_path / "tensorboard" / "train").iterdir()
    times = [
        event.wall_time for event in loader.LegacyEventFileLoader(str(path)).Load() if event.summary.value
    ]
    assert times[1] - times[0] == pytest.approx(20, abs=1e-3)
    assert times[2] - times[1] == pytest.approx(30, abs=1e-3)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    line = fails(1, *train(tmp_path / "run", "--tensorboard"))
    assert "pip install 'cnnjax[tensorboard]'" in line
    assert not contents(tmp_path)


def test_what_cannot_be_written_is_one_line(done: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="--out"):
        event_files.begin(tmp_path, [])
    assert (tmp_path / "tensorboard").read_text() == "mine"
    add = event_files.begin(tmp_path / "run", [])
    shutil.rmtree(tmp_path / "run")
    row: run_directory.Row = dict.fromkeys(run_directory.COLUMNS, 1.0)
    with pytest.raises(UserError, match="--out"):
        add(row)
