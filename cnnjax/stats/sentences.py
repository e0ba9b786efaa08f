"""What the statistics show, and what they cannot show, in sentences."""

from collections.abc import Iterable, Sequence

from cnnjax.stats.confusion import Pair
from cnnjax.stats.paired import Contrast, Summary, seeds_needed, smallest_p

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def conclusion(summary: Summary, metric: str, *, accuracy: bool = False) -> str:
    """State what the contrasts show about `metric`, and what they cannot show.

    `accuracy` reports values, which are fractions, in percentage points.
    """
    scale, unit, digits = (100, " percentage points", ".3f") if accuracy else (1, "", ".3g")
    if not summary.contrasts:
        return f"There is only one arm, so there is nothing to compare in {metric}."

    def effect(c: Contrast) -> str:
        verb, sign = ("raises", scale) if c.difference > 0 else ("lowers", -scale)
        low, high = sorted((sign * c.low, sign * c.high))
        return (
            f"{c.arm} {verb} it by {sign * c.difference:{digits}}{unit} "
            f"(95% interval {low:{digits}} to {high:{digits}}, corrected p {c.p_holm:.2g})"
        )

    significant = [c for c in summary.contrasts if c.significant]
    not_significant = [c for c in summary.contrasts if c.can_claim and not c.significant]
    untestable = [c for c in summary.contrasts if not c.can_claim]
    sentences = []
    if significant:
        sentences.append(_enumerated(map(effect, significant)))
    if not_significant:
        limit = scale * max(c.detectable for c in not_significant)
        sentences.append(
            f"no significant difference for {_enumerated(c.arm for c in not_significant)}; true differences "
            f"below about {limit:.2g}{' points' if accuracy else ''} would often go undetected"
        )
    if untestable:
        n = max(c.n for c in untestable)
        needed = max(seeds_needed(max(1, round(c.p_floor / smallest_p(c.n)))) for c in untestable)
        arms = _enumerated(c.arm for c in untestable)
        count = "one seed is" if n == 1 else f"{NUMBERS[n] if n < len(NUMBERS) else n} seeds are"
        sentences.append(f"{count} too few to test {arms}; use at least {needed}")
    if diverged := sum(arm.diverged for arm in summary.arms):
        sentences.append(f"{diverged} diverged {'run is' if diverged == 1 else 'runs are'} excluded")
    counts = sorted({c.n for c in summary.contrasts})
    pairs = " to ".join(map(str, counts[:1] + counts[1:][-1:])) + " paired seed" + "s" * (counts != [1])
    first, *rest = sentences
    text = ". ".join([first, *(sentence[0].upper() + sentence[1:] for sentence in rest)])
    return f"Against {summary.arms[0].name}, in {metric} over {pairs}: {text}."


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


def _enumerated(items: Iterable[str]) -> str:
    *head, last = items
    return f"{', '.join(head)} and {last}" if head else last
