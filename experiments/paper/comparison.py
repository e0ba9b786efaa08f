"""Published errors beside ours: tables, sentences and the entries of summary.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from published import Comparison, prediction_interval

from cnnjax import files, report
from cnnjax.experiment.results import Results
from cnnjax.report.tables import contrast_cells, contrast_heads
from cnnjax.shapes import Float
from cnnjax.stats import Contrast
from cnnjax.stats.sentences import REHEARSAL

Errors = Mapping[str, Float[np.ndarray, "seeds"]]
"""Test errors of each arm, as fractions; NaN where a run diverged."""
Published = Mapping[str, float]
"""Test errors in percent."""
VERDICT = {True: "yes", False: "no", None: "-"}


def compared(errors: Errors, published: Published) -> list[Comparison]:
    """Compare arms with the paper, in percent. The interval is that of one more run of ours.

    The paper's networks were tested on the same images, so the interval is over seeds alone.
    """
    comparisons = []
    for arm, values in errors.items():
        finite = 100 * values[np.isfinite(values)]
        if len(finite) > 1:
            low, high = prediction_interval(finite)
            comparisons.append(Comparison(arm, published.get(arm), finite, float(low), float(high)))
    return comparisons


def agreement(comparisons: Sequence[Comparison]) -> str:
    """Say how many published errors could be those of one of our runs."""
    known = [c for c in comparisons if c.within is not None]
    if not known:
        return ""
    inside = sum(c.within is True for c in known)
    below = sum(c.published is not None and c.published < c.low for c in known)
    lie = "lies" if inside == 1 else "lie"
    return (
        f" Of {len(known)} published errors, {inside} {lie} in the 95% interval of one more run of ours, "
        f"{below} below it and {len(known) - inside - below} above."
    )


def reported(
    results: Results,
    comparisons: Sequence[Comparison],
    contrasts: Sequence[Contrast],
    answer: str,
    caption: str,
    rehearsal: bool,
    error: str = "test error",
) -> dict[str, Any]:
    """Print the table and the sentence of an item, and return its entry of summary.json.

    Args:
        results: of a directory of the item, for its plan.
        comparisons: of arms with the paper.
        contrasts: of arms with each other.
        answer: what the contrasts say.
        caption: the protocol.
        rehearsal: it is too short to say anything.
        error: what the numbers are.
    """
    said = results.with_remarks(answer + agreement(comparisons))
    said = said if not rehearsal or said.startswith(REHEARSAL) else f"{REHEARSAL}. {said}"
    cells = {contrast.arm: contrast_cells(contrast, 100, ".3f") for contrast in contrasts}
    rows = [
        [
            c.measure,
            f"{len(c.ours)}",
            "-" if c.published is None else f"{c.published:.2f}",
            report.spread(c.ours, 3),
            "-" if np.isnan(c.low) else f"{c.low:.2f} to {c.high:.2f}",
            VERDICT[c.within],
            *(cells.get(c.measure, ["", ""]) if contrasts else []),
        ]
        for c in comparisons
    ]
    heads = f"{error}, %", "n", "paper", "ours ± sd", "95% interval of a run", "agrees"
    report.say(caption)
    differences = contrast_heads("difference, points", contrasts) if contrasts else []
    report.print_table((*heads, *differences), rows)
    report.say(said)
    return {
        "protocol": caption,
        "rehearsal": rehearsal,
        "metric": error,
        **{c.measure: c.as_dict() for c in comparisons},
        "contrasts": {contrast.arm: contrast.as_dict() for contrast in contrasts},
        "answer": said,
        **(results.evidence.as_dict() if results.evidence else {}),
        **files.made(),
    }
