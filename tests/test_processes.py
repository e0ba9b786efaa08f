"""Runs of several processes; if one is lost, the others end in bounded time with an error message."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import FILES, TINY, Ended, assert_same_run, fails, history, main, new_process, train

from cnnjax import files
from cnnjax.devices import processes
from cnnjax.devices.layouts import one_device
from cnnjax.devices.processes import Processes
from cnnjax.errors import ArgumentError, UserError
from cnnjax.runs.following import Job, follow, refuse_another_job
from cnnjax.runs.train_config import TrainConfig

EPOCHS = 4
ROOT = Path(__file__).parents[1]
BOUND = processes.SILENCE_SECONDS + 60  # to notice, and to start and compile on a slow machine
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(*command: str, preludes: tuple[str, str] = ("", "")) -> list[Ended]:
    """Run a command (a module or a script, and its arguments) in two processes, each after its prelude."""
    address = f"127.0.0.1:{free_port()}"
    started = []
    for number, prelude in enumerate(preludes):
        flags = ["--coordinator-address", address, "--num-processes", "2", "--process-id", str(number)]
        code = f"{prelude}\nimport os, runpy, sys; sys.argv = sys.argv[1:]\n"
        code += "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
        code += (
            "runpy.run_path(sys.argv[0], run_name='__main__')"
            if command[0].endswith(".py")
            else "runpy.run_module(sys.argv[0], run_name='__main__')"
        )
        arguments = [sys.executable, "-c", code, *command, *flags]
        pipes: Any = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        started.append(subprocess.Popen(arguments, text=True, env=ENVIRONMENT, cwd=ROOT, **pipes))
    try:
        outputs = [process.communicate(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def train_together(out: Path, *more: str, preludes: tuple[str, str] = ("", "")) -> list[Ended]:
    return together("cnnjax", *train(out, "--devices", "2", *more), preludes=preludes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes with two devices each."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    first, second = train_together(out, "--epochs", str(EPOCHS))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert "to validate on 4 x cpu" in first.out and f"epoch {EPOCHS}/{EPOCHS}" in first.out
    assert "epoch" not in second.out, "process 0 alone prints"
    return out


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one_of_four(whole: Path, tmp_path: Path) -> None:
    """Only the order of sums differs between devices of one process and those of several."""
    assert main(*train(tmp_path / "run", "--devices", "4", "--epochs", str(EPOCHS))).code == 0
    assert {path.name for path in whole.iterdir()} == FILES
    for ours, theirs in zip(history(whole)[1:], history(tmp_path / "run")[1:], strict=True):
        np.testing.assert_allclose([float(x) for x in ours], [float(x) for x in theirs], rtol=1e-5)
    config = (whole / "config.json").read_bytes()
    assert config == (tmp_path / "run/config.json").read_bytes(), "it does not depend on the devices"


DIES = """
import os, signal
from cnnjax.runs import following, programs
epochs = programs.epochs
def until_killed(*arguments):
    for number, end in enumerate(epochs(*arguments), 1):
        yield end
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
programs.epochs = until_killed
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_other_and_the_run_can_go_on(
    victim: int, whole: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    preludes = ("", DIES) if victim else (DIES, "")
    ended = train_together(tmp_path / "run", "--epochs", str(EPOCHS), preludes=preludes)
    assert time.monotonic() - began < BOUND
    other = ended[1 - victim]
    assert ended[victim].code == -9 and other.code != 0, ended
    assert other.err.splitlines()[-1].startswith("cnnjax: error: "), other.err
    assert "--resume" in other.err.splitlines()[-1]
    assert not (tmp_path / "run/result.json").exists()
    first, second = train_together(tmp_path / "run", "--resume", "--epochs", str(EPOCHS))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert re.search("resumed after epoch [123] of 4", first.out), first.out
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_mistake_that_one_process_sees_ends_the_other(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "run")
    first, second = train_together(out, "--epochs", str(EPOCHS))
    assert first.code == 2 and "already holds a run" in first.err
    assert second.code != 0 and "see the error it printed" in second.err.splitlines()[-1]
    assert history(out) == history(whole)


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(whole: Path) -> None:
    first, second = train_together(whole, "--resume")
    assert (first.code, second.code) == (0, 0) and "nothing to do" in first.out


@pytest.mark.slow
def test_an_experiment_in_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Members have a device each and do not communicate: the results are equal to the bit."""
    script = str(ROOT / "experiments/dropout_ablation.py")
    data = ("--dataset", "fashion_mnist", "--data-dir", str(TINY))
    flags = (*data, "--epochs", "1", "--seeds", "2", "--rates", "0", "0.5")
    alone = [sys.executable, script, *flags, "--out", str(tmp_path / "one")]
    subprocess.run(alone, check=True, env=ENVIRONMENT, capture_output=True, timeout=600)
    first, second = together(script, *flags, "--out", str(tmp_path / "two"))
    assert (first.code, second.code) == (0, 0), (first, second)
    for name in ("results.csv", "protocol.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    files = [{path.name for path in (tmp_path / name).rglob("*")} for name in ("one", "two")]
    assert files[0] == files[1]
    assert "val accuracy" in first.out and "val accuracy" not in second.out


ABSENT = ["--coordinator-address", "127.0.0.1:9", "--num-processes", "2", "--process-id", "1"]


@pytest.mark.slow
def test_a_process_that_waits_in_vain_says_so(tmp_path: Path) -> None:
    prelude = "from cnnjax.devices import processes; processes.START_SECONDS = 5"
    ended = new_process(*train(tmp_path / "run", *ABSENT), prelude=prelude)
    assert ended.code != 0 and not (tmp_path / "run").exists()
    assert "not all processes of this run connected within 5 s" in ended.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs sockets without files")
def test_a_number_is_taken_once_on_a_machine(tmp_path: Path) -> None:
    """JAX's coordinator would end the process that has the number, and with it the run."""
    host = ["--coordinator-address", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    with processes._alone_with_number(Processes(False, host[1], 2, 1)):
        error = fails(1, *train(tmp_path / "run", *host, "--process-id", "1"))
        assert f"process 1 of the run at {host[1]} is already at work" in error
        with processes._alone_with_number(Processes(False, host[1], 2, 0)):
            pass
    with processes._alone_with_number(Processes(False, host[1], 2, 1)):
        pass


def test_without_a_cluster_there_is_nothing_to_join(tmp_path: Path) -> None:
    ended = new_process(*train(tmp_path / "run", "--distributed"))
    assert ended.code == 2 and "--distributed detects no SLURM" in ended.err and ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--process-id", "0"), "must be given together"),
        (("--coordinator-address", "host:1", "--num-processes", "2"), "must be given together"),
        (("--coordinator-address", "host", "--num-processes", "2", "--process-id", "0"), "HOST:PORT"),
        (("--coordinator-address", "host:x", "--num-processes", "2", "--process-id", "0"), "HOST:PORT"),
        (("--coordinator-address", ":80", "--num-processes", "2", "--process-id", "0"), "HOST:PORT"),
        (("--coordinator-address", "host:80", "--num-processes", "2", "--process-id", "2"), "--process-id 2"),
        (
            ("--coordinator-address", "host:80", "--num-processes", "0", "--process-id", "0"),
            "--num-processes 0",
        ),
    ],
)
def test_wrong_flags_are_one_line(flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in fails(2, *train(tmp_path / "run", *flags))
    assert not list(tmp_path.iterdir())


def test_flags_name_a_process() -> None:
    assert not Processes().asked_for
    assert Processes(distributed=True).asked_for
    assert Processes(False, "[::1]:80", 2, 1).asked_for
    with pytest.raises(ArgumentError):
        Processes(num_processes=2)


def test_alone_everything_is_ones_own() -> None:
    assert processes.leads() and not processes.several()
    tree = {"a": np.arange(3), "b": "text"}
    assert processes.from_leader(tree) is tree
    np.testing.assert_array_equal(processes.fetch(np.arange(3)), np.arange(3))
    processes.leave(3)


MESSAGE = "cnnjax: error: gone\n"


@pytest.mark.parametrize(
    ("end", "printed"),
    [
        ("os.abort()", MESSAGE),
        pytest.param("os.kill(os.getpid(), 9)", MESSAGE, marks=pytest.mark.slow),
        pytest.param("say('went'); os._exit(0)", MESSAGE.replace("gone", "went"), marks=pytest.mark.slow),
        pytest.param("sys.exit(3)", "", marks=pytest.mark.slow),
        pytest.param("", "", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_disappears_leaves_a_message(end: str, printed: str) -> None:
    code = "import os, sys; from cnnjax.devices.processes import _last_words\n"
    code += f"with _last_words() as say:\n    say('gone')\n    {end or 'pass'}"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stderr == printed


CONFIG = TrainConfig(seed=3, epochs=4)


def job(**changes: Any) -> Job:
    return Job(CONFIG, None, {}, [], files.circumstances() | changes)


def test_processes_of_one_run_must_agree() -> None:
    refuse_another_job(job(), {"seed": 3, "epochs": 4, "dataset": "/elsewhere.npz"})
    with pytest.raises(ArgumentError, match=r"without --epochs 5 \(not 4\), --seed 0 \(not 3\)"):
        refuse_another_job(job(), {"seed": 0, "epochs": 5})
    with pytest.raises(UserError, match=r"^jax is .* in this process and 0\.1 in process 0"):
        refuse_another_job(job(jax="0.1"), {})
    with pytest.raises(UserError, match=r"^jax_random_seed_offset is None in this process and 7 in"):
        refuse_another_job(job(jax_random_seed_offset=7), {})
    with pytest.raises(UserError, match=r"^mask scheme is"):
        refuse_another_job(job(**{"mask scheme": 1}), {})


def test_a_follower_compares_before_it_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "from_leader", lambda _: job())
    with pytest.raises(ArgumentError, match="--seed 1"):
        follow(one_device(), {"seed": 1})
