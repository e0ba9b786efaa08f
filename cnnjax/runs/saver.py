"""Saving beside training: a thread writes a checkpoint while the device is busy with the next epoch."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cnnjax.errors import UserError
from cnnjax.runs import checkpoints
from cnnjax.runs.manifest import Manifest
from cnnjax.state import TrainState


class Saver:
    """Takes the state after each epoch and saves every `every`-th; leaving the context saves the last taken.

    A save that fails on the way is announced, and training goes on; the one at the end raises `UserError`.
    """

    def __init__(self, directory: Path, every: int, announce: Callable[[str], None], saved: int = 0) -> None:
        self.saved = saved  # the epoch of the last checkpoint on the disk, 0 for none
        self._directory, self._every, self._announce = directory, every, announce
        self._latest: tuple[dict[str, Any], Manifest] | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[int] | None = None
        self._thread.submit(checkpoints.warm_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save what is finished, whatever ended the training."""
        try:
            with suppress(UserError):  # it is tried again
                self._settle()
            if self._latest is not None and len(self._latest[1].history) > self.saved:
                self._pending = self._thread.submit(self._save, *self._latest)
                self._settle()
        except UserError as failure:
            if error is None:
                raise UserError(f"{failure}; mend that and go on with --resume") from failure
            self._announce(str(failure))
        finally:
            self._thread.shutdown()

    def take(self, state: TrainState, about: Manifest) -> None:
        """Copy the state after the last epoch in `about.history`; it may be donated afterwards."""
        self._latest = checkpoints.host_tree(state), about

    def start(self) -> None:
        """Begin to save the state last taken, if its epoch is one to be saved."""
        if self._latest is None or len(self._latest[1].history) % self._every:
            return
        try:
            self._settle()
        except UserError as failure:
            last = f"epoch-{self.saved} is the last good one" if self.saved else "there is none yet"
            self._announce(f"{failure}; training goes on ({last})")
        self._pending = self._thread.submit(self._save, *self._latest)

    def _save(self, tree: dict[str, Any], about: Manifest) -> int:
        checkpoints.save(self._directory, tree, about)
        return len(about.history)

    def _settle(self) -> None:
        """Wait for the save under way; raises its `UserError`."""
        if self._pending is not None:
            try:
                self.saved = self._pending.result()
            except UserError:
                self._pending = None
                raise
            # Only now, lest a Ctrl-C during the wait makes us forget that there is one.
            self._pending = None
