"""Several processes, on one machine or many, as one run: through JAX's own distributed runtime.

Process 0 leads: it alone reads the run directory, writes and prints, and hands the others what they need. All
of them load the data and train, each feeding its own devices their share of every batch.

A process that dies is noticed by JAX's heartbeats, whereupon the C++ code below JAX ends every other one on
the spot. So that this too ends with a line that says what happened, each process has a helper beside it that
has the line ready, and prints it when the process disappears without having taken it back.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax.errors import ArgumentError, UserError

START_SECONDS = 120
"""How long a process waits for the others to start."""
SILENCE_SECONDS = 100
"""After how long without a heartbeat a process counts as lost."""

T = TypeVar("T")

_HELPER = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
last = ""
for last in sys.stdin:
    pass
sys.stderr.write(last.lstrip())
"""


@dataclass(frozen=True)
class Processes:
    """Flags with which several processes make one run. Start the same command in each."""

    distributed: bool = False
    """Ask SLURM, Open MPI, Kubernetes or the TPU pod which processes there are, and join them."""
    coordinator_address: str | None = None
    """By hand: HOST:PORT of process 0, the same in every process."""
    num_processes: int | None = None
    """By hand: how many processes there are."""
    process_id: int | None = None
    """By hand: which one this is, from 0."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, before anything waits for it."""
        _, address, number, process = astuple(self)
        given = [value is not None for value in (address, number, process)]
        if any(given) and not all(given):
            raise ArgumentError(
                "by hand, --coordinator-address, --num-processes and --process-id are given together"
            )
        if address is None:
            return
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ArgumentError(f"--coordinator-address {address} must be HOST:PORT")
        if number < 1 or not 0 <= process < number:
            raise ArgumentError(
                f"--process-id {process} must lie between 0 and --num-processes {number}, itself not included"
            )

    @property
    def asked_for(self) -> bool:
        """Whether there is anything to join."""
        return self.distributed or self.process_id is not None


ALONE = Processes()


@contextmanager
def joined(asked: Processes) -> Iterator[None]:
    """Within this context, which comes before JAX's first computation, the processes are one.

    Its end waits for all of them. After an error the caller is to print it and `leave`.

    Raises:
        ArgumentError: none are found.
        UserError: another process is lost, where that can be noticed in Python.
    """
    if not asked.asked_for:
        yield
        return
    with _last_words() as say:
        say(
            f"the processes of this run did not all meet within {START_SECONDS} s: start every one of them, "
            "and see that --coordinator-address is process 0's, on a free port that the others can reach"
        )
        _initialize(asked)
        say(
            "this process was ended from outside, or because another one of the run is lost: what that one "
            f"printed says why; {_GO_ON}"
        )
        try:
            yield
            jax.distributed.shutdown()
        except RuntimeError as error:  # JAX's own are of this kind
            first = " ".join(str(error).split())[:200]
            raise UserError(
                "another process of this run is lost, and what that one printed says why, or a device failed "
                f"({first}); {_GO_ON}"
            ) from error


_GO_ON = "start all of them again, `train` with --resume, to go on"


def _initialize(asked: Processes) -> None:
    # It would take SIGTERM for itself, and leave nothing to `cnnjax.devices.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            asked.coordinator_address,
            asked.num_processes,
            asked.process_id,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=SILENCE_SECONDS,
        )
    except ValueError as error:  # the runtime's word for what it could not find out
        raise ArgumentError(
            "--distributed finds no SLURM, Open MPI, Kubernetes or TPU pod here; give --coordinator-address, "
            "--num-processes and --process-id"
        ) from error
    except (RuntimeError, OSError) as error:
        raise UserError(f"cannot join the processes of this run: {error}") from error


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def leads() -> bool:
    """Whether this is the process that writes and prints; it is where there is no other."""
    return not several() or jax.process_index() == 0


def from_leader(value: T) -> T:
    """What process 0 passes, in all processes; all call this at the same places."""
    if not several():
        return value
    content = np.frombuffer(pickle.dumps(value), np.uint8) if leads() else np.empty(0, np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(content))))
    content = content if leads() else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes())


def fetch(tree: Any) -> Any:
    """The arrays of a tree as NumPy's, whole, from whatever process holds their parts."""
    if not several():
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def silence_followers() -> None:
    """Let process 0 alone print."""
    if not leads():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open to the end)


def leave(code: int) -> None:
    """Where there are several processes, end this one at once: an orderly exit would wait for the others."""
    if several():
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _last_words() -> Iterator[Callable[[str], None]]:
    """A function that sets the line to be printed on stderr if this process disappears within the context."""
    command = [sys.executable, "-I", "-S", "-c", _HELPER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as helper:
        assert helper.stdin is not None

        def say(words: str) -> None:
            assert helper.stdin is not None
            with suppress(OSError):  # whoever killed the helper does without its words
                helper.stdin.write(f"cnnjax: error: {words}\n" if words else " \n")
                helper.stdin.flush()

        try:
            yield say
        finally:
            say("")
