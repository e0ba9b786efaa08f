"""Runs of several processes, on one machine or many, through JAX's distributed runtime.

Process 0 leads: only it reads the run directory, writes and prints, and it sends the others what they need.
All processes load the data and train, each feeding its own devices their share of every batch.

JAX's heartbeats detect a process that has died, and JAX's C++ code then kills all others at once. So that an
error message is still printed, each process starts a helper that prints one if the process disappears.

JAX is imported where it is used: a process that only reads and writes files does without it.
"""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import numpy as np

from cnnjax.errors import ArgumentError, UserError, one_line

START_SECONDS = 120
"""How long a process waits for the others to start."""
SILENCE_SECONDS = 100
"""How long a process may send no heartbeat before it counts as lost."""

T = TypeVar("T")

_HELPER = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
last = ""
for last in sys.stdin:
    pass
sys.stderr.write(last.lstrip())
"""


@dataclass(frozen=True)
class Processes:
    """Flags that join several processes into one run. Start the same command in each."""

    distributed: bool = False
    """Join the processes that SLURM, Open MPI, Kubernetes or the TPU pod reports."""
    coordinator_address: str | None = None
    """Without a cluster: HOST:PORT of process 0, the same in every process."""
    num_processes: int | None = None
    """Without a cluster: the number of processes."""
    process_id: int | None = None
    """Without a cluster: the number of this process, from 0."""

    def __post_init__(self) -> None:
        """Refuse invalid combinations before anything waits for other processes."""
        _, address, number, process = astuple(self)
        given = [value is not None for value in (address, number, process)]
        if any(given) and not all(given):
            raise ArgumentError(
                "--coordinator-address, --num-processes and --process-id must be given together"
            )
        if address is None:
            return
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ArgumentError(f"--coordinator-address {address} must be HOST:PORT")
        if number < 1 or not 0 <= process < number:
            raise ArgumentError(
                f"--process-id {process} must be at least 0 and less than --num-processes {number}"
            )

    @property
    def asked_for(self) -> bool:
        """Whether these flags ask to join other processes."""
        return self.distributed or self.process_id is not None


ALONE = Processes()


@contextmanager
def joined(asked: Processes) -> Iterator[None]:
    """Join the processes for the time of this context; enter it before JAX's first computation.

    Leaving the context waits for all processes. After an error, the caller should print it and call `leave`.

    Raises:
        ArgumentError: no cluster was detected.
        UserError: another process is lost, if Python can detect that; or this machine has this process of
            the run already.
    """
    if not asked.asked_for:
        yield
        return
    with _alone_with_number(asked), _last_words() as say:
        say(
            f"not all processes of this run connected within {START_SECONDS} s; start all of them, and check "
            "that --coordinator-address is process 0's, with a free port that the others can reach"
        )
        _initialize(asked)
        say(
            "this process was killed, or another process of this run was lost: see the error it "
            f"printed; {_GO_ON}"
        )
        try:
            yield
            sys.modules["jax"].distributed.shutdown()
        except RuntimeError as error:  # JAX's errors are of this type
            raise UserError(
                "another process of this run was lost: see the error it printed; or a device failed "
                f"({one_line(error)}); {_GO_ON}"
            ) from error


_GO_ON = "to continue, start all processes again, `train` with --resume"


@contextmanager
def _alone_with_number(asked: Processes) -> Iterator[None]:
    """Refuse a second process with the same number on this machine.

    JAX's coordinator would take it for a restart of the first, and end all processes of the run. It knows a
    process by its number alone, so a second one on another machine cannot be refused.
    """
    if asked.process_id is None or sys.platform != "linux":
        yield
        return
    address = hashlib.sha256(str(asked.coordinator_address).encode()).hexdigest()
    with socket.socket(socket.AF_UNIX) as number:
        try:
            # A name without a file, which the kernel frees when the process ends, however it ends.
            number.bind(f"\0cnnjax-{address}-{asked.process_id}")
        except OSError:
            raise UserError(
                f"process {asked.process_id} of the run at {asked.coordinator_address} is already at work on "
                "this machine; give each process a --process-id of its own, and each run a port of its own"
            ) from None
        yield


def _initialize(asked: Processes) -> None:
    import jax

    # The preemption service would handle SIGTERM instead of `cnnjax.devices.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            asked.coordinator_address,
            asked.num_processes,
            asked.process_id,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=SILENCE_SECONDS,
        )
    except ValueError as error:  # what the runtime raises if it detects no cluster
        raise ArgumentError(
            "--distributed detects no SLURM, Open MPI, Kubernetes or TPU pod; give --coordinator-address, "
            "--num-processes and --process-id"
        ) from error
    except (RuntimeError, OSError) as error:
        raise UserError(f"cannot join the processes of this run: {error}") from error


def several() -> bool:
    """Whether this process has joined others."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def leads() -> bool:
    """Whether this process writes and prints: process 0, or the only one."""
    return not several() or sys.modules["jax"].process_index() == 0


def from_leader(value: T) -> T:
    """Broadcast the value that process 0 passes; every process must call this at the same point."""
    if not several():
        return value
    from jax.experimental import multihost_utils

    content = np.frombuffer(pickle.dumps(value), np.uint8) if leads() else np.empty(0, np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(content))))
    content = content if leads() else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes())


def fetch(tree: Any) -> Any:
    """Copy a tree of arrays to the host, gathering the shards of all processes."""
    import jax
    from jax.experimental import multihost_utils

    if not several():
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def silence_followers() -> None:
    """Discard what processes other than 0 print."""
    if not leads():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (stays open until the process ends)


def leave(code: int) -> None:
    """In a run of several processes, exit at once: a normal exit would wait for the others."""
    if several():
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def _last_words() -> Iterator[Callable[[str], None]]:
    """Yield a function that sets the error to print on stderr if this process dies within the context."""
    command = [sys.executable, "-I", "-S", "-c", _HELPER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as helper:
        assert helper.stdin is not None

        def say(message: str) -> None:
            assert helper.stdin is not None
            with suppress(OSError):  # the helper may have been killed
                helper.stdin.write(f"cnnjax: error: {message}\n" if message else " \n")
                helper.stdin.flush()

        try:
            yield say
        finally:
            say("")
