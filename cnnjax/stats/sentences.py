"""What the statistics show, and what they cannot show, in sentences."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cnnjax.stats.confusion import Pair
from cnnjax.stats.contrasts import Contrast
from cnnjax.stats.families import ALPHA
from cnnjax.stats.intervals import FEWEST
from cnnjax.stats.paired import Summary

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
REHEARSAL = "Too short to answer the question: a rehearsal"


class Words(NamedTuple):
    """How differences of a metric are written."""

    scale: float = 1.0
    unit: str = ""  # after a number
    digits: str = ".3g"

    def number(self, value: float, sign: str = "") -> str:
        """Write a number without its unit."""
        return f"{self.scale * value:{sign}{self.digits}}"

    def interval(self, low: float, high: float, sign: str = "") -> str:
        """Write an interval without its unit."""
        return f"{self.number(low, sign)} to {self.number(high, sign)}"


POINTS = Words(100, " points", ".3f")
"""Differences of accuracies, which are fractions, in percentage points."""


def conclusion(summary: Summary, metric: str, *, accuracy: bool = False, rehearsal: bool = False) -> str:
    """State what the contrasts show about `metric`, and what they cannot show.

    An interval beside a p is the one that inverts its test. Seeds are what varies, so the sentence is about
    these images and this split.

    Args:
        summary: of the arms.
        metric: its name.
        accuracy: report values, which are fractions, in percentage points.
        rehearsal: the protocol is too short for an answer; of a summary without a contrast that could be
            significant, this is said in any case.
    """
    if not summary.contrasts:
        return f"There is only one arm, so there is nothing to compare in {metric}."
    words = POINTS if accuracy else Words()
    rehearsal = rehearsal or summary.rehearsal
    equivalence = [] if rehearsal else _equivalence(summary, words)
    sentences = [*_tests(summary, words), *equivalence, *_diverged(summary)]
    counts = sorted({c.n for c in summary.contrasts})
    pairs = " to ".join(map(str, counts[:1] + counts[1:][-1:])) + " paired seed" + "s" * (counts != [1])
    first, *rest = sentences
    text = ". ".join([first, *(sentence[0].upper() + sentence[1:] for sentence in rest)])
    banner = f"{REHEARSAL}. " if rehearsal else ""
    where = f"in {metric} over {pairs}, on these images and this split"
    return f"{banner}Against {summary.arms[0].name}, {where}: {text}."


def _tests(summary: Summary, words: Words) -> list[str]:
    """Say which contrasts are significant, which are not, and which could not be tested."""
    able = [c for c in summary.contrasts if c.can_claim]
    significant, tested = [c for c in able if c.significant], [c for c in able if c.level]
    others = [c for c in tested if not c.significant]
    sentences = []
    if significant:
        sentences.append(enumerated(_effect(c, words) for c in significant))
    if others:
        found = max(others, key=lambda c: c.detectable)
        seeds = f"{_counted(found.n)} find{'s' * (found.n == 1)}"
        sentences.append(
            f"no significant difference for {enumerated(_null(c, words) for c in others)}; {seeds} a true "
            f"difference of {words.number(found.detectable)}{words.unit} with 80% probability (of "
            f"{words.interval(found.detectable_low, found.detectable_high)}, because the spread is estimated)"
        )
    if dissent := disagreement(tested, words):
        sentences.append(dissent)
    if untested := [c.arm for c in able if not c.level]:
        verb = "is" if len(untested) == 1 else "are"
        sentences.append(
            f"{enumerated(untested)} {verb} not tested, because {summary.primary} is not significant"
        )
    if untestable := [c for c in summary.contrasts if not c.can_claim]:
        n, arms = min(c.n for c in untestable), enumerated(c.arm for c in untestable)
        verb = "is" if n == 1 else "are"
        least = max(c.needed for c in untestable)
        sentences.append(f"{_counted(n)} {verb} too few to test {arms}; use at least {least}")
    return sentences


def disagreement(contrasts: Iterable[Contrast], words: Words) -> str:
    """Say of which contrasts the t interval contradicts the test; an empty text if of none."""
    listed = [f"{c.arm} ({words.interval(c.low, c.high, '+')})" for c in contrasts if c.disagree]
    if not listed:
        return ""
    intervals = f"t interval{'s' * (len(listed) > 1)} of {enumerated(listed)}"
    return f"the {intervals} would say otherwise, but the test decides"


def interval_name(contrasts: Collection[Mapping[str, Any]]) -> str:
    """Name the t intervals of contrasts, given the fields of each `Contrast`: "95% t, jointly".

    A primary contrast is no member of the others' family: "95% t, jointly except rate 0.5".
    """
    families = {c["arm"]: c["family"] for c in contrasts}
    share = 100 * (1 - next((c["alpha"] for c in contrasts), ALPHA))
    alone = [arm for arm, family in families.items() if family == 1]
    if len(alone) == len(families):
        return f"{share:g}% t"
    return f"{share:g}% t, jointly{f' except {enumerated(alone)}' if alone else ''}"


def _effect(c: Contrast, words: Words) -> str:
    verb, sign = ("raises", 1) if c.difference > 0 else ("lowers", -1)
    low, high = sorted((sign * c.test_low, sign * c.test_high))
    size = f"{words.number(sign * c.difference)}{words.unit.replace(' points', ' percentage points')}"
    return f"{c.arm} {verb} it by {size} ({_confidence(c)} {words.interval(low, high)}, {_p(c)})"


def _null(c: Contrast, words: Words) -> str:
    interval = words.interval(c.test_low, c.test_high, "+")
    return f"{c.arm} ({words.number(c.difference, '+')}{words.unit}, {_confidence(c)} {interval}, {_p(c)})"


def _confidence(c: Contrast) -> str:
    return f"{100 * (1 - c.level):.3g}% interval"


def _p(c: Contrast) -> str:
    return f"{'corrected ' * (c.family > 1)}p {c.p_holm:.2g}"


def _equivalence(summary: Summary, words: Words) -> list[str]:
    """Say which arms equal the reference to within the margin, and how probable a larger difference is."""
    known = [(c, c.equivalence) for c in summary.contrasts if c.equivalence and c.n >= FEWEST]
    if not known:
        return []
    corrected, sentences = "corrected " * (len(summary.contrasts) > 1), []
    margin = f"{words.scale * known[0][1].margin:g}{words.unit}"
    within = f"{summary.arms[0].name} to within {margin}"

    def p(c: Contrast) -> str:
        return f"{corrected}p {c.p_equivalent:.2g}"

    if same := [c for c, _ in known if c.equivalent]:
        verb = "equals" if len(same) == 1 else "equal"
        sentences.append(f"{enumerated(f'{c.arm} ({p(c)})' for c in same)} {verb} {within}")
    possible = [c for c, e in known if c.low <= e.margin and c.high >= -e.margin]
    if other := [c for c in possible if not c.equivalent and not c.significant]:
        verb = "is" if len(other) == 1 else "are"
        sentences.append(
            f"{enumerated(f'{c.arm} ({p(c)})' for c in other)} {verb} not shown to equal {within}"
        )
    for verb, up in (("raised", True), ("lowered", False)):
        arms: dict[str, list[str]] = {}
        for c, e in known:
            if (c.difference > 0) == up:
                at_all, more = (e.positive, e.above) if up else (1 - e.positive, e.below)
                arms.setdefault(f"{_probability(at_all)} ({_probability(more)})", []).append(c.arm)
        if arms:
            listed = "; ".join(f"{both} for {enumerated(of)}" for both, of in arms.items())
            sentences.append(f"the probability that it is {verb} (by more than {margin}) is {listed}")
    return sentences


def _probability(value: float) -> str:
    return "above 0.99" if value > 0.99 else "below 0.01" if value < 0.01 else f"{value:.2f}"


def _diverged(summary: Summary) -> list[str]:
    if not (diverged := sum(arm.diverged for arm in summary.arms)):
        return []
    excluded = f"{diverged} diverged {'run is' if diverged == 1 else 'runs are'} excluded"
    ranked = [f"{c.p_worst:.2g} for {c.arm}" for c in summary.contrasts if c.p_worst <= 1]
    if not ranked:
        return [excluded]
    corrected = "corrected " * (len(summary.contrasts) > 1)
    return [f"{excluded}; ranked below all others instead, {corrected}p is {enumerated(ranked)}"]


def pairing_sentence(summary: Summary) -> str:
    """Say what pairing by seed gained; an empty text where that is not known."""
    known = [c for c in summary.contrasts if c.variance_ratio < float("inf")]
    if not known or min(c.n for c in known) < FEWEST:
        return ""
    listed = enumerated(f"{c.variance_ratio:.2g} for {c.arm} (r {c.correlation:+.2f})" for c in known)
    return (
        f"Without pairing, the variance of the difference to {summary.arms[0].name} would be multiplied by "
        f"{listed}, where r is the correlation over seeds."
    )


def pair_sentence(
    pairs: Sequence[Pair], a: int, b: int, images: int, names: Sequence[str] = tuple("0123456789")
) -> str:
    """Describe one of the sorted `pairs`: how often it is confused, its rank, and in which direction."""
    rank = next(i for i, pair in enumerate(pairs) if {pair.a, pair.b} == {a, b})
    pair, most, seeds = pairs[rank], pairs[0], len(pairs[0].counts)
    forth, back = pair.counts.mean(axis=0)
    who, spread, digits = "This network", "", 0
    if seeds > 1:
        who, spread, digits = "A network", f" (sd {pair.per_seed.std(ddof=1):.1f} over {seeds} seeds)", 1
    lead = (
        f"; {names[most.a]} and {names[most.b]} lead with {most.per_seed.mean():.{digits}f}" if rank else ""
    )
    first, second = names[pair.a], names[pair.b]
    return (
        f"{who} confuses {first} and {second} on {forth + back:.{digits}f} of {images:,} test images"
        f"{spread}, {_ordinal(rank + 1)} of {len(pairs)} pairs{lead}. It classifies {first} as {second} on "
        f"{forth:.{digits}f} and {second} as {first} on {back:.{digits}f}."
    )


def _ordinal(n: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    suffix = "th" if 10 < n % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return words[n - 1] if n <= len(words) else f"{n}{suffix}"


def _counted(n: int) -> str:
    return "one seed" if n == 1 else f"{NUMBERS[n] if n < len(NUMBERS) else n} seeds"


def enumerated(items: Iterable[str]) -> str:
    """Join items as "a, b and c"."""
    *head, last = items
    return f"{', '.join(head)} and {last}" if head else last


def plural(n: int, noun: str) -> str:
    """Return "1 epoch", "2 epochs"."""
    return f"{n} {noun}{'s' * (n != 1)}"
