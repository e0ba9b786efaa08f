"""Was the machine quiet? A fixed piece of work before every round, beside the best of the run."""

from collections.abc import Callable, Iterable

from ceilings.measurements import Ceilings, least_seconds, memory_timer, product_timers
from costs import step_cost

from cnnjax.models import MODELS

from .protocol import Settings
from .worker import Row

QUIET = 0.9
"""A round is quiet if both rates before it are at least this part of the best ones."""
CALLS = 3


def calibrator() -> Callable[[], Ceilings]:
    """Compile the work, and return a function that does it, in a few tenths of a second."""
    products, memory = product_timers("float32").values(), memory_timer()

    def calibrate() -> Ceilings:
        flops = max(product.amount / product.timer(CALLS) for product in products)
        return Ceilings(flops, memory.amount / memory.timer(CALLS))

    return calibrate


def best_rates(rows: Iterable[Row]) -> Ceilings:
    """Return the best rates of a run, which are the machine's ceilings."""
    return Ceilings(*map(max, zip(*((row.flops, row.bandwidth) for row in rows), strict=True)))


def is_quiet(row: Row, best: Ceilings) -> bool:
    """Return whether nothing slowed the machine before this row's round."""
    return min(row.flops / best.flops, row.bandwidth / best.bandwidth) >= QUIET


def least_seconds_of_epoch(setting: Settings, images: int, best: Ceilings) -> float | None:
    """Return the least seconds of an epoch, see `costs.step_cost`, where its operations are counted."""
    if setting.validate or setting.model not in MODELS:
        return None
    steps = images / setting.batch_size
    return steps * least_seconds(step_cost(MODELS[setting.model], setting.batch_size), best)
