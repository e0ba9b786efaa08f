"""The figure of the worst mistakes: images with true class, predicted class and its probability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cnnjax.plots.style import DPI, write_around
from cnnjax.shapes import UInt8
from cnnjax.stats.confusion import Mistake, Pair

COLUMNS = 6


def worst_images(
    images: UInt8[np.ndarray, "n height width channels"],
    rows: Sequence[tuple[Pair, Sequence[Mistake]]],
    names: Sequence[str] = tuple("0123456789"),
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Draw a row of misclassified images for each pair.

    Below each image: true -> predicted class, the mean probability of the predicted class, and how many
    networks predict it.
    """
    figure = Figure(figsize=(0.95 * COLUMNS + 1.2, 1.35 * len(rows) + 0.9), dpi=DPI, layout="constrained")
    short = max(map(len, names)) <= 3
    arrow, gap = (" → ", ", ") if short else ("\n→ ", "\n")  # a line for each long name
    grid = figure.subplots(len(rows), COLUMNS, squeeze=False)
    for axes, (pair, mistakes) in zip(grid, rows, strict=True):
        seeds = len(pair.counts)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, mistake in zip(axes, mistakes, strict=False):
            axis.imshow(_drawable(images[mistake.image]), cmap="gray_r", vmin=0, vmax=255)
            agree = f"\n{mistake.seeds} of {seeds}" if seeds > 1 else ""
            axis.set_xlabel(
                f"{names[mistake.true]}{arrow}{names[mistake.predicted]}{gap}{mistake.probability:.0%}{agree}",
                fontsize=8.5,
            )
            axis.spines[:].set_visible(True)
        count = f"{pair.per_seed.mean():.{seeds > 1:d}f}"
        if seeds > 1:
            count += f" ± {pair.per_seed.std(ddof=1):.1f}"
        name = f"{names[pair.a]} and {names[pair.b]}\n{count} images"
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9.5)
    legend = "Below each image: true → predicted, probability of the predicted class"
    if rows and len(rows[0][0].counts) > 1:
        legend += " (mean over the networks that predict it), and their number"
    write_around(figure, title, f"{legend}. {caption}")
    return figure


def _drawable(image: np.ndarray) -> np.ndarray:
    """Return RGB as it is, and of other images the first channel."""
    return image if image.shape[2] == 3 else image[..., 0]
