"""The benchmark's side of the protocol: it starts the peers, lets them train in turns, and makes the rows."""

import json
import math
import os
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from cnnjax.errors import UserError

from .protocol import Settings

JUDGED = 3
"""Epochs after which the validation accuracy is taken."""
UNSET = ("CUDA_", "JAX_", "KERAS_", "KMP_", "MKL_", "OMP_", "PYTHON", "TF_", "XLA_")
"""Beginnings of the variables that no peer inherits, or its speed would differ from user to user."""


class Launch(NamedTuple):
    """How to start one process."""

    command: list[str]
    variables: dict[str, str]


class Row(NamedTuple):
    """One epoch of one process: a line of results.csv, where NaN is an empty cell."""

    model: str
    batch_size: int
    rate: float
    validate: bool
    entry: str
    round: int  # 0 is the first, not counted
    seconds: float
    loss: float
    accuracy: float
    val_accuracy: float  # of every epoch with validation, else of epoch JUDGED
    peak_rss_mb: float
    startup_seconds: float  # of round 0: process start to the end of its first epoch
    elsewhere: float  # cores that the rest of the machine kept busy meanwhile, on average
    version: str

    @property
    def setting(self) -> Settings:
        """What was trained."""
        return Settings(self.model, self.batch_size, self.rate, self.validate, 0)


class Worker:
    """The process of one entry in one setting; it waits for a line unless it is asked for something."""

    def __init__(self, name: str, launch: Launch, setting: Settings, arrays: Path, log: Path) -> None:
        """Start it, on the CPU; what it prints goes to `log`."""
        options = {
            "--arrays": arrays,
            "--model": setting.model,
            "--batch-size": setting.batch_size,
            "--rate": setting.rate,
            "--seed": setting.seed,
        }
        words = [str(word) for option in options.items() for word in option]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
        self._name, self._log = name, log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [*launch.command, *words, *["--validate"] * setting.validate],
                env=inherited | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""} | launch.variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,  # Ctrl-C is for the benchmark, which ends its processes itself
            )

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, and wait until its memory is free."""
        if kind is not None:
            self._process.kill()
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def answer(self) -> dict[str, Any]:
        """The next line that it says.

        Raises:
            UserError: it says no more, or something else than JSON.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            said = [*self._log.read_text(errors="replace").split("\n"), line]
            last = next((text.strip() for text in reversed(said) if text.strip()), "no message")
            raise UserError(f"the peer {self._name} failed: {last} (its messages: {self._log})") from None

    def ask(self, word: str) -> dict[str, Any]:
        """Its answer to `epoch` or `evaluate`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then it has ended, and `answer` says how
            print(word, file=self._process.stdin, flush=True)
        return self.answer()

    def epoch(self) -> dict[str, Any]:
        """Its answer to `epoch`, and what the rest of the machine did meanwhile (`Row.elsewhere`)."""
        began, busy, own = time.perf_counter(), _busy_seconds(), self._own_seconds()
        answer = self.ask("epoch")
        others = (_busy_seconds() - busy) - (self._own_seconds() - own)
        return answer | {"elsewhere": max(others, 0.0) / (time.perf_counter() - began)}

    def _own_seconds(self) -> float:
        """Its processor time so far."""
        # Fields 14 and 15 of /proc/PID/stat; the command name before them may itself hold spaces.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _busy_seconds() -> float:
    """Processor time of the whole machine so far: all but idle and waiting for a disk."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def measure(
    setting: Settings, launches: Mapping[str, Launch], arrays: Path, rounds: int, logs: Path
) -> Generator[list[Row], None, None]:
    """Let each process train an epoch in turn, for round 0 and `rounds` more; yields the rows of each round.

    Raises:
        UserError: a process failed.
    """
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        versions: dict[str, str] = {}
        for number in range(rounds + 1):
            rows = []
            for name, launch in launches.items():
                began = time.perf_counter()
                if number == 0:
                    worker = Worker(name, launch, setting, arrays, logs / f"{name}.log")
                    workers[name] = stack.enter_context(worker)
                    version = worker.answer()["version"]
                    versions[name] = ", ".join(" ".join(pair) for pair in version.items())
                answer = workers[name].epoch()
                startup = time.perf_counter() - began if number == 0 else None
                if number + 1 == JUDGED and not setting.validate:
                    answer |= workers[name].ask("evaluate")
                answer |= {"entry": name, "round": number, "version": versions[name]}
                answer |= setting._asdict() | {"startup_seconds": startup}
                rows.append(Row(*(math.nan if answer[key] is None else answer[key] for key in Row._fields)))
            yield rows
