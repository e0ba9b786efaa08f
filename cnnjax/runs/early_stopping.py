"""Early stopping: train until the validation loss stops to fall, and keep the best epoch.

As Keras's `EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)`.
"""

from collections.abc import Mapping, Sequence


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """Return the first epoch of lowest validation loss, counted from 1."""
    losses = [row["val_loss"] for row in history]
    return losses.index(min(losses)) + 1


def ends(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the last `patience` epochs brought no lower validation loss; a patience of 0 never ends."""
    return bool(history) and 0 < patience <= len(history) - best_epoch(history)


def result_epoch(history: Sequence[Mapping[str, float]], patience: int) -> int:
    """Return the epoch whose network is the result of a run: the best with a patience, else the last."""
    return best_epoch(history) if patience else len(history)
