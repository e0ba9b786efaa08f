"""Results that several machines computed are joined to those of one, or refused by name."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import contents
from test_plan import ARMS, PROTOCOL, SPLITS, STATED

from cnnjax import cli, experiment
from cnnjax.errors import ArgumentError, UserError
from cnnjax.experiment import engine, merging
from cnnjax.experiment.plans import analysed, read_looks, read_plans
from cnnjax.experiment.rows import read_rows, write_rows


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return the directories of seeds 0 and 1, of 2 and 3, and of all."""
    root = tmp_path_factory.mktemp("halves")
    for name, first, seeds in (("a", 0, 2), ("b", 2, 2), ("whole", 0, 4)):
        protocol = replace(PROTOCOL, seeds=seeds, first_seed=first)
        plan = STATED._replace(seeds=seeds, first_seed=first)
        experiment.run(ARMS, protocol, SPLITS, root / name, plan=plan)
    return root / "a", root / "b", root / "whole"


def test_two_halves_are_the_whole(
    halves: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    *parts, whole = halves
    for name, order in (("out", parts), ("reversed", [*parts[::-1], whole])):
        out = tmp_path / "new" / name
        assert cli.main(["merge", *map(str, order), "--out", str(out)]) == 0
        printed = capsys.readouterr().out
        assert "16 rows of 2 arms, seeds 0 to 3" in printed and f"--seeds 4 --out {out}" in printed
        for file in ("results.csv", "protocol.json", "environments.json"):
            assert (out / file).read_bytes() == (whole / file).read_bytes()
        rows = read_rows(out / "results.csv")
        assert analysed(out, rows) == rows, "a report shows the seeds of all parts"
        assert {path.name for path in (tmp_path / "new").iterdir()} <= {"out", "reversed"}
    monkeypatch.setattr(engine, "_train_block", lambda *_: pytest.fail("it trains again"))
    out = tmp_path / "new" / "out"
    ours, theirs = (experiment.run(ARMS, PROTOCOL, SPLITS, path, plan=STATED) for path in (out, whole))
    for arm in ours.arms:
        for one, other in zip(ours.predictions[arm], theirs.predictions[arm], strict=True):
            np.testing.assert_array_equal(one, other)
    assert read_plans(out)[-1].plan == STATED and read_plans(out)[-1].rows == 0
    assert ours.evidence is not None and ours.evidence.looks == (2, 4), "a part was looked at, too"
    assert [(look.first_seed, look.seeds) for look in read_looks(out)] == [(0, 2), (2, 2), (0, 4)]


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).write_text((path / name).read_text().replace(old, new, 1))

    return change


def with_rows_of_the_other(path: Path) -> None:
    """Add rows that the other directory has with other values."""
    rows = read_rows(path / "results.csv")
    write_rows(path / "results.csv", rows | {("rate 0", 1, 1): rows["rate 0", 2, 1]})


def with_other_predictions(path: Path) -> None:
    name = "rate 0, seed 1.npz"
    with np.load(path / "predictions" / "rate 0, seed 2.npz") as file:
        np.savez(path / "predictions" / name, labels=file["labels"], probability=file["probability"])
    theirs = read_rows(path.parent / "a" / "results.csv")
    same = {cell: row for cell, row in theirs.items() if cell[:2] == ("rate 0", 1)}
    write_rows(path / "results.csv", read_rows(path / "results.csv") | same)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "protocol": (edit("protocol.json", '"batch_size": 8', '"batch_size": 4'), r"different: batch_size"),
    "arm": (edit("protocol.json", "0.01,", "0.02,"), r"different: arm rate 0\)"),
    "rows": (with_rows_of_the_other, r"b and .*a differ in rate 0, seed 1, epoch 1"),
    "predictions": (with_other_predictions, "b has other predictions of rate 0, seed 1"),
    "no experiment": (lambda path: (path / "protocol.json").unlink(), "b holds no results of an experiment"),
    "no results": (lambda path: (path / "results.csv").unlink(), "b holds no results of an experiment"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_not_the_same_experiment_is_refused(
    change: Callable[[Path], None], message: str, halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    for half in halves[:2]:
        shutil.copytree(half, tmp_path / half.name)
    change(tmp_path / "b")
    with pytest.raises(ArgumentError, match=message):
        experiment.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_another_plan_and_a_gap_are_refused_and_no_plan_is_told(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    for name, plan in {
        "primary": STATED._replace(primary=None, first_seed=2, seeds=2),
        "looks": STATED._replace(looks=(1, 2), first_seed=2, seeds=2),
    }.items():
        shutil.copytree(halves[1], tmp_path / name)
        merging.write_plans(tmp_path / name, [merging.Stated(plan, "now", 0)])
        with pytest.raises(ArgumentError, match=rf"{name} has another plan .*different: {name}"):
            experiment.merge([halves[0], tmp_path / name], tmp_path / "out")
    shutil.copytree(halves[1], tmp_path / "late")
    (tmp_path / "late" / "plan.json").unlink()
    experiment.merge([halves[0], tmp_path / "late"], tmp_path / "joined")
    assert [(each.plan.seeds, each.rows) for each in read_plans(tmp_path / "joined")] == [(2, 0), (4, 8)]
    rows = read_rows(halves[1] / "results.csv")
    store = merging.Store(tmp_path / "far", {"batch_size": 8, "train_sample": "stratified"})
    store.out.mkdir()
    store.rows = {(arm, seed + 3, epoch): row for (arm, seed, epoch), row in rows.items()}
    store.write()
    with pytest.raises(ArgumentError, match="the seeds 2 to 4 are in none of the directories"):
        experiment.merge([halves[0], tmp_path / "far"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_get_one_line(halves: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, b, _ = halves
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = contents(tmp_path)
    for directories, out, message in (
        ([a], "new", "two directories or more"),
        ([a, b], "full", "full is not empty"),
        ([a, b], "full/file", "file is not empty"),
        ([a, a.parent], "new", r"holds no results of an experiment; there is one in .*halves.*/a"),
    ):
        with pytest.raises(ArgumentError, match=message):
            experiment.merge(directories, tmp_path / out)
    assert contents(tmp_path) == before


def test_a_merge_that_fails_leaves_nothing(
    halves: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        experiment.merge(halves[:2], tmp_path / "out")
    assert not list(tmp_path.iterdir())
