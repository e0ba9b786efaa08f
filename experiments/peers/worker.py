"""The benchmark's side of the protocol: start the peers, let them train in turn, and collect rows."""

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ceilings.measurements import Ceilings

from cnnjax.errors import UserError

from .protocol import Settings

ACCURACY_EPOCH = 3
"""Epoch after which the validation accuracy is measured."""
UNSET = ("CUDA_", "JAX_", "KERAS_", "KMP_", "MKL_", "OMP_", "PYTHON", "TF_", "XLA_")
"""Prefixes of environment variables that peers do not inherit, because they would change the speed."""


class Launch(NamedTuple):
    """Command and environment variables of a process."""

    command: list[str]
    variables: dict[str, str]


class Row(NamedTuple):
    """One epoch of one process: a row of results.csv, where NaN is an empty cell."""

    model: str
    batch_size: int
    rate: float
    validate: bool
    entry: str
    round: int  # 0 is the warm-up
    seconds: float
    loss: float
    accuracy: float
    val_accuracy: float  # of every epoch with validation, else only of ACCURACY_EPOCH
    peak_rss_mb: float
    startup_seconds: float  # of round 0, from process start to the end of the first epoch
    elsewhere: float  # cores that other processes kept busy, on average
    flops: float  # rates of the calibration before the round, see calibration.py
    bandwidth: float
    version: str
    members: int = 1
    launch: int = 1  # how often its processes had been started, this time included

    @property
    def setting(self) -> Settings:
        """The setting of this row."""
        return Settings(self.model, self.batch_size, self.rate, self.validate, 0, self.members)


class Worker:
    """The process of one entry in one setting, which waits for commands."""

    def __init__(self, name: str, launch: Launch, setting: Settings, arrays: Path, log: Path) -> None:
        """Start the process on the CPU, with its messages in `log`."""
        options = {
            "--arrays": arrays,
            "--model": setting.model,
            "--batch-size": setting.batch_size,
            "--rate": setting.rate,
            "--seed": setting.seed,
            "--members": setting.members,
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
                process_group=0,  # so that Ctrl-C reaches only the benchmark, which ends its processes
            )

    def __enter__(self) -> Self:
        """Return the running worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process and wait until its memory is free."""
        if kind is not None:
            self._process.kill()
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def answer(self) -> dict[str, Any]:
        """Return its next line.

        Raises:
            UserError: the process ended, or the line is not JSON.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            lines = [*self._log.read_text(errors="replace").split("\n"), line]
            last = next((text.strip() for text in reversed(lines) if text.strip()), "no message")
            raise UserError(f"the peer {self._name} failed: {last} (log: {self._log})") from None

    def ask(self, word: str) -> dict[str, Any]:
        """Send `epoch` or `evaluate` and return the answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process has ended, and `answer` reports why
            print(word, file=self._process.stdin, flush=True)
        return self.answer()

    def epoch(self) -> dict[str, Any]:
        """Train one epoch; return the answer, its processor time, and `Row.elsewhere`."""
        began, busy, own = time.perf_counter(), busy_seconds(), self._own_seconds()
        answer = self.ask("epoch")
        own = self._own_seconds() - own
        elsewhere = max(busy_seconds() - busy - own, 0.0) / (time.perf_counter() - began)
        return answer | {"processor_seconds": own, "elsewhere": elsewhere}

    def _own_seconds(self) -> float:
        """Return its processor time so far."""
        # Fields 14 and 15 of /proc/PID/stat; the command name before them may contain spaces.
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Return the processor time of the whole machine so far, without idle and I/O wait."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def measure(
    setting: Settings,
    launches: Mapping[str, Launch],
    arrays: Path,
    rounds: int,
    logs: Path,
    calibrate: Callable[[], Ceilings],
    launch: int = 1,
) -> Generator[list[Row], None, None]:
    """Let all processes train an epoch in turn, for round 0 and `rounds` more; yield the rows of each round.

    Before each round, when all of them wait, `calibrate` measures the machine. `launch` numbers the start of
    the processes, for the rows.

    Raises:
        UserError: a process failed.
    """
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        versions: dict[str, str] = {}
        for number in range(rounds + 1):
            rows = []
            rates = calibrate()._asdict()
            for name, start in launches.items():
                began = time.perf_counter()
                if number == 0:
                    worker = Worker(name, start, setting, arrays, logs / f"{name}.log")
                    workers[name] = stack.enter_context(worker)
                    version = worker.answer()["version"]
                    versions[name] = ", ".join(" ".join(pair) for pair in version.items())
                answer = workers[name].epoch()
                startup = time.perf_counter() - began if number == 0 else None
                if number + 1 == ACCURACY_EPOCH and not setting.validate:
                    answer |= workers[name].ask("evaluate")
                answer |= {"entry": name, "launch": launch, "round": number, "version": versions[name]}
                answer |= rates | setting._asdict() | {"startup_seconds": startup}
                rows.append(Row(*(math.nan if answer[key] is None else answer[key] for key in Row._fields)))
            yield rows
