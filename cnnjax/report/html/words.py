"""Numbers and names as text; the templates use these functions as filters."""

import math
from collections.abc import Iterable
from pathlib import Path

from cnnjax.plots.style import is_share

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
NOUNS = {"mnist": "digit", "fashion_mnist": "garment", "kmnist": "character"}
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST"}


def dataset(name: str) -> str:
    """Name a data set for readers: one of the user's own by its file name, without the path."""
    return DATASETS.get(name, Path(name).name if Path(name).is_absolute() else name)


def size(shape: Iterable[int]) -> str:
    """Write a shape: "12 × 10 × 3"."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape))


def percent(share: float, digits: int = 2) -> str:
    """Format a fraction of 1 as a percentage, or as a dash if it is not finite."""
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else DASH


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """Format a number with a typographic minus sign, or as a dash if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int = 4, sign: bool = False) -> str:
    """Format an interval as "low to high", or as a dash if an end is missing or not finite."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{number(low, digits, sign)} to {number(high, digits, sign)}"


def digits_for(values: Iterable[float | None]) -> int:
    """Return the decimals that show two significant digits of the largest value: 2 at least, 8 at most."""
    most = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0)
    return min(8, max(2, 1 - math.floor(math.log10(most)))) if most else 2


def title(name: str) -> str:
    """Spell out a metric: "val_accuracy" as "Validation accuracy"."""
    spelled = {"val": "validation", "train": "training"}
    text = " ".join(spelled.get(word, word) for word in name.split("_"))
    return text[:1].upper() + text[1:]


def measured(metric: str, nats: bool = True) -> str:
    """Name a metric with its unit: "Validation accuracy, %"; losses are in `nats` or have none."""
    unit = ", %" if is_share(metric) else ", nats" if nats and "loss" in metric else ""
    return title(metric) + unit


def several(n: int, noun: str) -> str:
    """Count things: "1 image", "12,000 images"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def flat(value: object) -> str:
    """Write a JSON value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {flat(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(flat, value))
    # The repr of a module has a comment, then a line for each field.
    lines = [line.strip() for line in str(value).splitlines() if not line.strip().startswith("#")]
    return ", ".join(lines).replace("(, ", "(").replace(", )", ")")
