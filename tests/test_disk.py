"""A failure at any call that changes the disk: kills, errors and power cuts lose nothing that was saved.

`tests/shim.c` counts the calls of a run or an experiment, TensorStore's included, and disturbs one of them.
Then the job goes on, and must end like one that was never disturbed.
"""

import errno
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from disk import Disk
from helpers import assert_same_run, contents, environment, succeeds

COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs Linux and a C compiler"),
]
NEVER = 0, 0, 0


class Ended(NamedTuple):
    code: int  # minus the signal that ended it
    calls: int
    seconds: float


class Killable:
    """The helper process of `tests/killable.py`."""

    def __init__(self, directory: Path, programs: Path, **settings: str) -> None:
        self.directory = directory
        shim = directory / "shim.so"
        source = Path(__file__).with_name("shim.c")
        assert COMPILER is not None
        subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", shim, source, "-lpthread"], check=True)
        env = environment(programs) | {"LD_PRELOAD": str(shim)} | settings
        command = [sys.executable, str(source.with_name("killable.py"))]
        pipes: Any = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        self._process = subprocess.Popen(command, text=True, env=env, **pipes)

    def run(
        self, job: str, disk: Path, fault: tuple[int, int, int] = NEVER, after: float | None = None
    ) -> Ended:
        """Start or go on with a job on a disk, with a fault at a call, or a kill after some seconds."""
        disk.mkdir(exist_ok=True)
        files = {"disk": disk, "log": self.directory / "log", "journal": self.directory / "journal"}
        request = {name: str(path) for name, path in files.items()}
        assert self._process.stdin is not None and self._process.stdout is not None
        line = json.dumps(request | {"job": job, "fault": fault, "after": after})
        print(line, file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))

    def log(self) -> str:
        """Return what the last job printed."""
        return (self.directory / "log").read_text()

    def after_job(self, disk: Path) -> Disk:
        """Return what the last job has done to the directory, if that was empty before."""
        return Disk(disk, self.directory / "journal")

    def close(self) -> None:
        self._process.communicate(timeout=300)


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Killable]:
    helper = Killable(tmp_path_factory.mktemp("killable"), programs)
    yield helper
    helper.close()


def assert_same_experiment(out: Path, whole: Path) -> None:
    ours, theirs = contents(out), contents(whole)
    assert ours.keys() == theirs.keys()
    # Three have times; a state is of no use once all rows are there, and may be one epoch behind them.
    changing = {"seconds.csv", "looks.csv", "plan.json", "state.npz"}
    assert not [name for name in ours if name not in changing and ours[name] != theirs[name]]


class Whole(NamedTuple):
    """A job that nothing disturbed."""

    job: str
    disk: Path
    ended: Ended

    def require_same(self, disk: Path, kept: bool = True) -> None:
        """Check that the job has ended on another disk as on this one; `kept`: with all checkpoints."""
        if self.job == "train":
            assert_same_run(disk / "out", self.disk / "out", kept)
        else:
            assert_same_experiment(disk / "out", self.disk / "out")


@pytest.fixture(scope="module", params=["train", "experiment"])
def whole(request: pytest.FixtureRequest, killable: Killable) -> Whole:
    job, disk = request.param, killable.directory / f"whole-{request.param}"
    assert killable.run(job, disk).code == 0, killable.log()  # fills the cache of compiled programs
    shutil.rmtree(disk)
    ended = killable.run(job, disk)
    assert ended.code == 0, killable.log()
    assert killable.after_job(disk).now() == contents(disk), "the shim sees every call"
    return Whole(job, disk, ended)


def disturb(killable: Killable, whole: Whole, kind: str, draw: random.Random, disk: Path) -> int:
    """Begin the job, with a fault of a kind at a random call, whose number is returned."""
    at = draw.randint(1, whole.ended.calls)
    number = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}.get(kind, 0)
    ended = killable.run(whole.job, disk, (at, number, kind == "ENOSPC"))
    if number:
        assert ended.code in (0, 1), (at, ended, killable.log())
        assert ended.code == 0 or "cnnjax: error: " in killable.log(), (at, killable.log())
    else:  # the number of calls varies a little
        assert ended.code in (-signal.SIGKILL, 0), (at, ended, killable.log())
    if kind.startswith("power cut"):
        killable.after_job(disk).cut_power(draw if kind.endswith("reordered") else None)
    return at


KINDS = "kill", "EIO", "ENOSPC", "power cut", "power cut, reordered"
"""EIO once, and ENOSPC from then on."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_call_loses_nothing(
    kind: str, killable: Killable, whole: Whole, tmp_path: Path
) -> None:
    draw = random.Random(f"{whole.job} {kind}")
    for trial in range(2):
        disk = tmp_path / str(trial)
        at = disturb(killable, whole, kind, draw, disk)
        assert killable.run(whole.job, disk).code == 0, (at, killable.log())
        # A checkpoint before the last may have failed, while training went on.
        whole.require_same(disk, kept=not kind.startswith("E"))


def test_what_was_finished_survives_a_power_cut(killable: Killable, whole: Whole, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    assert killable.run(whole.job, disk).code == 0
    killable.after_job(disk).cut_power(None)
    succeeds("verify", str(disk / "out"))
    again = killable.run(whole.job, disk)
    assert again.code == 0 and again.calls < whole.ended.calls / 4, "nothing is trained"
    whole.require_same(disk)


def test_kills_at_random_times(killable: Killable, whole: Whole, tmp_path: Path) -> None:
    draw = random.Random(1)
    for trial in range(4):
        disk = tmp_path / str(trial)
        killed = killable.run(whole.job, disk, after=draw.uniform(0.3, 1.0) * whole.ended.seconds)
        assert killed.code in (-signal.SIGKILL, 0)
        assert killable.run(whole.job, disk).code == 0, killable.log()
        whole.require_same(disk)


def test_kills_while_it_compiles(killable: Killable, tmp_path: Path, programs: Path) -> None:
    """Without a cache of compiled programs, a run spends most of its time compiling."""
    draw, disk, whole = random.Random(2), tmp_path / "disk", tmp_path / "whole"
    with closing(Killable(tmp_path, programs, JAX_ENABLE_COMPILATION_CACHE="0")) as compiling:
        ended = compiling.run("train", whole)
        codes = [
            compiling.run("train", disk, after=draw.uniform(0.2, 0.8) * ended.seconds).code for _ in range(3)
        ]
    assert ended.code == 0 and -signal.SIGKILL in codes and {*codes} <= {-signal.SIGKILL, 0}
    assert killable.run("train", disk).code == 0, killable.log()
    assert_same_run(disk / "out", whole / "out")


def test_a_job_that_is_killed_again_and_again_ends(killable: Killable, whole: Whole, tmp_path: Path) -> None:
    """Each time a little later, and no progress is lost."""
    calls = whole.ended.calls
    for at in itertools.count(calls // 5, calls // 5):
        ended = killable.run(whole.job, tmp_path, (at, 0, 0))
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL and at < 2 * calls
    whole.require_same(tmp_path)
