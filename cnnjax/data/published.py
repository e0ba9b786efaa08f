"""The training log that the first tutorial printed, as tables.

It is the log of the Keras tutorial "ConvolutionNetwork(Keras)_2020_06_01": one run per arm, trained on
2020-06-01 on 48,000 MNIST images and validated on the other 12,000, with batch size 32, Adam and 20 epochs.
Losses and accuracies have the four decimals that Keras printed. A single run has no spread, so these curves
are plotted beside ours, and no test compares with them.
"""

import csv
from importlib import resources

_TABLES = {0.0: "keras_cnn_baseline.csv", 0.5: "keras_cnn_dropout.csv"}


def published_history(model: str, dataset: str, dropout_rate: float) -> list[dict[str, float]] | None:
    """Return the tutorial's rows for a network, or None if it printed none.

    A row has the keys `epoch` (1, 2, ...), `loss`, `accuracy`, `val_loss`, `val_accuracy` (fractions of 1)
    and `microseconds_per_sample`.
    """
    if (model, dataset) != ("keras-cnn", "mnist") or dropout_rate not in _TABLES:
        return None
    table = resources.files("cnnjax.data") / "published_runs" / _TABLES[dropout_rate]
    with table.open(encoding="utf-8") as lines:
        return [{key: float(text) for key, text in row.items()} for row in csv.DictReader(lines)]
