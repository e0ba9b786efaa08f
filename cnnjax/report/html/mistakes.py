"""What networks take for what: pairs of classes, with the images behind them, and the whole matrix."""

from collections.abc import Mapping, Sequence

import numpy as np

from cnnjax.data import Dataset
from cnnjax.experiment.results import Predictions
from cnnjax.report import spread
from cnnjax.report.html.markup import Markup, ink, join, table, tag
from cnnjax.stats.confusion import Mistake, Pair, confused_pairs, pair_sentence, worst_mistakes

PAIRS, IMAGES = 4, 6


def pairs(said: Predictions, test: Dataset, classes: Sequence[str]) -> Markup:
    """The pairs confused most, each with the images that most networks, or the one most surely, mistake."""
    found = [p for p in confused_pairs(test.labels, said, len(classes))[:PAIRS] if p.counts.any()]
    if not found:
        return tag("p", "Not one image is mistaken.")
    return tag("div", *(_pair(pair, said, test, classes) for pair in found), class_="pairs")


def sentence(said: Predictions, test: Dataset, classes: Sequence[str]) -> Markup:
    """The readers' question of the second tutorial: are 3 and 5 confused?"""
    found = confused_pairs(test.labels, said, len(classes))
    return tag("p", pair_sentence(found, 3, 5, len(test.labels)))


def by_arm(predictions: Mapping[str, Predictions], test: Dataset, classes: Sequence[str]) -> Markup:
    """The first arm's most confused pairs, and how often each arm confuses them."""
    found = {arm: confused_pairs(test.labels, said, len(classes)) for arm, said in predictions.items()}
    first = next(iter(found.values()))[:PAIRS]
    heads = ["pair", *(f"{arm} (n = {len(of[0].counts)})" for arm, of in found.items())]
    rows: list[list[object]] = []
    for pair in first:
        same = (next(p for p in of if (p.a, p.b) == (pair.a, pair.b)) for of in found.values())
        told = [spread(p.per_seed.astype(float), int(len(p.counts) > 1)) for p in same]
        rows.append([f"{classes[pair.a]} and {classes[pair.b]}", *told])
    return table(heads, rows, "Test images that a network confuses: mean ± sd over seeds", "cards")


def matrix(counts: np.ndarray, classes: Sequence[str]) -> Markup:
    """Counts i64[classes, classes], row = true; the errors are shaded, one scale for all."""
    most = max(int((counts - np.diag(np.diag(counts))).max()), 1)

    def cell(row: int, column: int) -> Markup:
        n = int(counts[row, column])
        heat = "right" if row == column else str(-(-4 * n // most))
        return tag("td", n or ("0" if row == column else ""), data_heat=heat)

    names = range(len(classes))
    head = tag("tr", tag("td"), *(tag("th", classes[c], scope="col") for c in names))
    body = (tag("tr", tag("th", classes[r], scope="row"), *(cell(r, c) for c in names)) for r in names)
    told = "All test images: at the left what they are, above what they are taken for"
    matrix = tag("table", tag("caption", told), tag("thead", head), tag("tbody", *body), class_="matrix")
    return tag("div", matrix, class_="scroll", tabindex=0, role="region", aria_label="confusion matrix")


def _pair(pair: Pair, said: Predictions, test: Dataset, classes: Sequence[str]) -> Markup:
    seeds = len(pair.counts)
    count = f"{pair.per_seed.mean():.{int(seeds > 1)}f} images" + (" a network" if seeds > 1 else "")
    count = count.replace("1 images", "1 image") if count == "1 images" else count
    shown = worst_mistakes(test.labels, said, pair, IMAGES)
    return tag(
        "section",
        tag("h3", f"{classes[pair.a]} and {classes[pair.b]} ", tag("small", count)),
        tag("div", *(_mistake(m, seeds, test, classes) for m in shown), class_="strip"),
        class_="pair",
    )


def _mistake(mistake: Mistake, seeds: int, test: Dataset, classes: Sequence[str]) -> Markup:
    true, taken = classes[mistake.true], classes[mistake.predicted]
    who = f", {mistake.seeds} of {seeds}" if seeds > 1 else ""
    image = ink(test.images[mistake.image], f"test image {mistake.image}: {true}, taken for {taken}")
    told = join(f"{true} → {taken}", tag("small", f"{mistake.probability:.2f}{who}"))
    return tag("figure", image, tag("figcaption", told))
