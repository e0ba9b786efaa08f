"""What the times of `scaling.py` say: tables and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from costs import cost, step_cost

from cnnjax import report
from cnnjax.config import HParams
from cnnjax.kernels.parts import PART
from cnnjax.models import ConvNet

from .measurements import Ceilings, Fit, counted_by_xla, fit, least_seconds

HPARAMS = HParams(1e-3, 0.5)
PARTS = ("forward", "and backward", "and Adam", "and dropout")
MEMBER_BATCH = 32  # of each network in a population


@dataclass(frozen=True)
class Timings:
    """All measured times and what was timed."""

    model: ConvNet
    batches: Sequence[int]
    devices: Sequence[int]
    members: Sequence[int]
    seconds: Mapping[str, np.ndarray]  # seconds a step, f64[rounds], by arm
    ceilings: Ceilings

    def median(self, arm: str) -> float:
        """Return the median seconds a step of an arm."""
        return float(np.median(self.seconds[arm]))

    @property
    def over_batches(self) -> list[float]:
        """Median seconds a step for each batch size on one device."""
        return [self.median(batch_arm(batch)) for batch in self.batches]


def batch_arm(batch: int, devices: int = 1) -> str:
    """Name the arm of a batch size, on one device or divided over several."""
    return f"batch {batch}" + (f", {devices} devices" if devices > 1 else "")


def part_arm(batch: int, part: str) -> str:
    """Name the arm of a part of a step, see `PARTS`."""
    return batch_arm(batch) if part == PARTS[-1] else f"batch {batch}, {part}"


def networks_arm(members: int) -> str:
    """Name the arm of a population."""
    return f"{members} networks"


def divided(batches: Sequence[int]) -> Sequence[int]:
    """Return the batch sizes that are divided over devices."""
    return batches[-2:]


def split_batches(batches: Sequence[int]) -> Sequence[int]:
    """Return the batch sizes whose steps are split into parts."""
    return sorted({batches[0], batches[-2:][0]})


def describe(timings: Timings, caption: str) -> dict[str, Any]:
    """Print tables and sentences; return them for summary.json."""
    ceilings, batches, seconds = timings.ceilings, timings.batches, timings.over_batches
    costs = [step_cost(timings.model, batch) for batch in batches]
    fitted = fit(batches, seconds)
    fractions = [least_seconds(c, ceilings) / s for c, s in zip(costs, seconds, strict=True)]
    report.say(f"Time of a training step, medians: {caption}")
    bounds = ("compute bound, ms", "memory bound, ms", "achieved")
    report.print_table(
        ("batch", "ms a step", "µs an image", "fitted, ms", *bounds),
        (
            (
                f"{batch:,}",
                f"{1e3 * step:.3f}",
                f"{1e6 * step / batch:.2f}",
                f"{1e3 * fitted.at(batch):.3f}",
                f"{1e3 * counted.flops / ceilings.flops:.3f}",
                f"{1e3 * counted.bytes / ceilings.bandwidth:.3f}",
                f"{fraction:.0%}",
            )
            for batch, step, counted, fraction in zip(batches, seconds, costs, fractions, strict=True)
        ),
    )
    parts_by_batch = {
        str(batch): {part: timings.median(part_arm(batch, part)) for part in PARTS}
        for batch in split_batches(timings.batches)
    }
    for batch, parts in parts_by_batch.items():
        shares = zip(PARTS, np.diff([0, *parts.values()]) / parts[PARTS[-1]], strict=True)
        listed = ", ".join(f"{name.removeprefix('and ')} {share:.0%}" for name, share in shares)
        report.say(f"Shares of a step at batch {batch}: {listed}.")
    speedups = {
        f"batch {batch}": {
            str(count): timings.median(batch_arm(batch)) / timings.median(batch_arm(batch, count))
            for count in timings.devices
        }
        for batch in divided(timings.batches)
    }
    for batch, times in speedups.items():
        for count, speedup in times.items():
            report.say(f"{batch} on {count} devices: {speedup:.2f} times as fast as on one.")
    alone = timings.median(batch_arm(MEMBER_BATCH))
    networks = {str(count): timings.median(networks_arm(count)) / count for count in timings.members}
    for count, each in networks.items():
        report.say(
            f"{count} networks in one program: {1e3 * each:.3f} ms per step and network, "
            f"{each / alone:.2f} times that of one alone."
        )
    # Larger batches are computed in parts, of which XLA counts only one.
    compared = {
        str(batch): (step_cost(timings.model, batch), counted_by_xla(timings.model, batch, HPARAMS))
        for batch in split_batches(timings.batches)
        if batch <= PART
    }
    for batch, (ours, theirs) in compared.items():
        report.say(
            f"At batch {batch}, XLA counts {theirs.flops / ours.flops:.2f} times our operations and "
            f"{theirs.bytes / ours.bytes:.2f} times our bytes."
        )
    sentences = conclusions(timings, fitted, fractions)
    for sentence in sentences:
        report.say(sentence)
    return {
        "protocol": caption,
        "ceilings": ceilings._asdict(),
        "fit": fitted._asdict(),
        "achieved": dict(zip(map(str, batches), fractions, strict=True)),
        "parts": parts_by_batch,
        "speed-up": speedups,
        "seconds a step and network": networks,
        "counted": {batch: ours._asdict() for batch, (ours, _) in compared.items()},
        "counted by XLA": {batch: theirs._asdict() for batch, (_, theirs) in compared.items()},
        "sentences": sentences,
    }


def conclusions(timings: Timings, fitted: Fit, fractions: Sequence[float]) -> list[str]:
    """State the results in sentences; `fractions` are of the ceiling, by batch."""
    batches, seconds = timings.batches, np.array(timings.over_batches)
    error = seconds / [fitted.at(batch) for batch in batches] - 1
    worst = int(np.argmax(np.abs(error)))
    best = int(np.argmax(fractions))
    per_image = seconds / batches
    cheapest = int(np.argmin(per_image))
    mib = cost(timings.model).activation_bytes / 2**20
    ends = {0, len(batches) - 1} - {best}
    others = ", ".join(f"batch {batches[end]:,} reaches {fractions[end]:.0%}" for end in sorted(ends))
    equal = ""
    if min(fitted) > 0:
        equal = f"; the two are equal at batch {fitted.fixed / fitted.image:,.0f}"
    sentences = [
        f"Measured ceilings of one device: {timings.ceilings.flops / 1e9:,.0f} GFLOP/s in matrix products, "
        f"{timings.ceilings.bandwidth / 1e9:,.1f} GB/s of memory bandwidth.",
        f"A step takes {1e3 * fitted.fixed:.3f} ms plus {1e6 * fitted.image:.2f} µs per image{equal}. The "
        f"largest error of this fit is {error[worst]:+.0%}, at batch {batches[worst]:,}.",
        f"Batch {batches[best]:,} comes closest to the ceiling with {fractions[best]:.0%}; {others}.",
    ]
    if cheapest < len(batches) - 1:
        sentences.append(
            f"An image is cheapest at batch {batches[cheapest]:,} ({mib * batches[cheapest]:,.1f} MiB of "
            f"activations); at batch {batches[-1]:,} ({mib * batches[-1]:,.1f} MiB) it takes "
            f"{per_image[-1] / per_image[cheapest] - 1:.0%} longer."
        )
    else:
        sentences.append(f"An image is cheapest at the largest batch, {batches[-1]:,}.")
    if max(fractions) > 1:
        sentences.append("Above 100%, caches saved memory traffic that the count includes.")
    return sentences
