"""Arms of `pooling_ablation.py`, and what is measured of them besides accuracy."""

from collections.abc import Sequence

import numpy as np
from costs import Cost, cost, narrowed

from cnnjax.data import Dataset
from cnnjax.experiment.results import Results
from cnnjax.models import ConvNet

SHIFTS = (1, 2)
MEASURES = {
    "gap": "validation loss minus training loss",
    **{f"lost_at_shift_{pixels}": f"accuracy lost to a shift of {pixels} px" for pixels in SHIFTS},
}
"""Metrics besides those of the validation images, in words."""
ARMS = ("max", "average", "median", "strided", "none", "none, same size")
Costs = Sequence[tuple[Cost, np.ndarray]]  # one an arm, with the milliseconds of a training step by launch


def pooling_arms(model: ConvNet) -> dict[str, ConvNet]:
    """Return the arms by name, without dropout, the reference first."""
    model = model.clone(dropout="none")
    none = model.clone(pooling="none")
    return {
        "max": model.clone(pooling="max"),
        "average": model.clone(pooling="average"),
        "median": model.clone(pooling="median"),
        "strided": model.clone(pooling="strided"),
        "none": none,
        "none, same size": narrowed(none, cost(model).parameters),
    }


def shifted(dataset: Dataset, pixels: int) -> Dataset:
    """Shift successive images up, down, left and right, filling with black."""
    images = np.empty_like(dataset.images)
    padded = np.pad(dataset.images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    _, height, width, _ = images.shape
    corners = ((2 * pixels, pixels), (0, pixels), (pixels, 2 * pixels), (pixels, 0))
    for i, (top, left) in enumerate(corners):
        images[i::4] = padded[i::4, top : top + height, left : left + width]
    return Dataset(images, dataset.labels)


def secondary(results: Results) -> dict[str, np.ndarray]:
    """Return the generalisation gap and the accuracy lost to shifts, float[arms, seeds]; lower is better."""
    unshifted = results.final("val_accuracy")
    lost = {f"lost_at_shift_{p}": unshifted - results.final(f"shift_{p}_accuracy") for p in SHIFTS}
    return {"gap": results.final("val_loss") - results.final("train_loss"), **lost}
