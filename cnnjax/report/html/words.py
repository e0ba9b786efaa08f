"""Numbers and names as the report tells them."""

import math
from collections.abc import Iterable

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "kmnist": "KMNIST"}


def percent(share: float, digits: int = 2) -> str:
    """A share of 1 in percent; a dash where it is not defined."""
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else DASH


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """With a real minus sign; a dash where it is not defined."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int = 4, sign: bool = False) -> str:
    """ "low to high"; a dash where it is not defined."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return f"{number(low, digits, sign)} to {number(high, digits, sign)}"


def digits_for(values: Iterable[float | None]) -> int:
    """Decimals that leave two digits of the largest of the values."""
    most = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0)
    return min(8, max(2, 1 - math.floor(math.log10(most)))) if most else 2


def title(name: str) -> str:
    """ "val_accuracy" as "Validation accuracy"."""
    words = name.replace("_", " ").split()
    words = [{"val": "validation", "train": "training"}.get(word, word) for word in words]
    told = " ".join(words)
    return told[:1].upper() + told[1:]


def several(n: int, noun: str) -> str:
    """ "1 image", "12,000 images"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
