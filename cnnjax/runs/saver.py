"""Write checkpoints on a thread while the device trains the next epoch."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from cnnjax.errors import UserError
from cnnjax.runs import arrays, checkpoints
from cnnjax.runs.manifest import Manifest
from cnnjax.state import TrainState


class Saver:
    """Saves every `every`-th epoch, and when the context exits, the last epoch that was staged.

    A failure to save is announced and training continues; a failure on exit raises `UserError`.
    """

    def __init__(
        self,
        directory: Path,
        every: int,
        start: Manifest,
        began: float,
        announce: Callable[[str], None],
        require_in_place: Callable[[], None],
    ) -> None:
        """Save to `directory`.

        Args:
            directory: the run's `checkpoints`.
            every: number of epochs between checkpoints.
            start: the manifest of where training starts.
            began: the `time.perf_counter()` of that.
            announce: called with a line about each failure.
            require_in_place: called before each save; raises `UserError` if the run directory has gone.
        """
        self.saved = len(start.history)  # the epoch of the last checkpoint on disk, 0 if there is none
        self._directory, self._every, self._start, self._began = directory, every, start, began
        self._announce, self._require_in_place = announce, require_in_place
        self._staged: tuple[dict[str, Any], Manifest] | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[int] | None = None
        self._thread.submit(arrays.orbax)  # importing it takes seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Save the last finished epoch, whatever ended the training."""
        try:
            with suppress(UserError):  # it is saved again below
                self._wait()
            if self._staged is not None and len(self._staged[1].history) > self.saved:
                self._pending = self._thread.submit(self._save, *self._staged)
                self._wait()
        except UserError as failure:
            if error is None:
                raise UserError(f"{failure}; fix that and continue with --resume") from failure
            self._announce(str(failure))
        finally:
            self._thread.shutdown()

    def seconds(self) -> float:
        """Return the seconds since the start of the run, without interruptions."""
        return self._start.seconds + time.perf_counter() - self._began

    def stage(self, state: TrainState, history: list[dict[str, float]]) -> None:
        """Copy the state after the last epoch in `history`; it may be donated afterwards."""
        manifest = self._start._replace(history=list(history), seconds=self.seconds())
        self._staged = checkpoints.host_tree(state), manifest

    def start(self) -> None:
        """Start to save the staged state if its epoch is one to be saved."""
        if self._staged is None or len(self._staged[1].history) % self._every:
            return
        try:
            self._wait()
        except UserError as failure:
            last = f"the last good one is epoch-{self.saved}" if self.saved else "there is none yet"
            self._announce(f"{failure}; training continues ({last})")
        self._pending = self._thread.submit(self._save, *self._staged)

    def _save(self, tree: dict[str, Any], manifest: Manifest) -> int:
        self._require_in_place()
        checkpoints.save(self._directory, tree, manifest)
        return len(manifest.history)

    def _wait(self) -> None:
        """Wait until the pending save ends; raise its `UserError`."""
        if self._pending is not None:
            try:
                self.saved = self._pending.result()
            except UserError:
                self._pending = None
                raise
            # Not earlier: a Ctrl-C during the wait must not lose track of it.
            self._pending = None
