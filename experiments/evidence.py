"""Write the tables of docs/evidence.md from the summaries of experiments.

`make evidence` copies each results/NAME/summary.json that exists to docs/evidence/NAME.json, and rewrites
what stands between the marks <!-- NAME --> and <!-- /NAME --> of docs/evidence.md from the copies. A test
fails where page and copies disagree, so a number on the page is one that the experiment wrote.
"""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 120
Record = Mapping[str, Any]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown."""
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def interval(low: float | None, high: float | None, scale: float = 100) -> str:
    """Return the interval in brackets, or nothing if there is none."""
    return "" if low is None or high is None else f" [{scale * low:+.2f}, {scale * high:+.2f}]"


def compared(of: Record, scale: float = 100) -> list[str]:
    """Return the cells of a contrast: the difference with its t interval; p with the interval of its test."""
    difference = f"{scale * of['difference']:+.2f}{interval(of['low'], of['high'], scale)}"
    p = f"{of['p']:.3f} ({of['p_holm']:.3f})".replace("0.000", "<0.001")
    ends = of["test_low"], of["test_high"]
    return [difference, p + interval(*ends, scale) if of["can_claim"] else "too few seeds"]


def arms(record: Record) -> list[str]:
    """Return the table of an ablation's arms."""
    accuracy, loss = record["val_accuracy"], record["val_loss"]
    contrasts = {contrast["arm"]: compared(contrast) for contrast in accuracy["contrasts"]}
    rows = [
        [
            arm["name"],
            f"{arm['n']}" + f" ({arm['diverged']} diverged)" * bool(arm["diverged"]),
            f"{100 * arm['mean']:.2f} ± {100 * arm['sd']:.2f}",
            f"{loss['arms'][i]['mean']:.4f} ± {loss['arms'][i]['sd']:.4f}",
            *contrasts.get(arm["name"], ["reference", ""]),
        ]
        for i, arm in enumerate(accuracy["arms"])
    ]
    together = ", jointly" * any(contrast["family"] > 1 for contrast in accuracy["contrasts"])
    reference = accuracy["arms"][0]["name"]
    heads = "arm", "n", "validation accuracy %", "validation loss", f"difference to {reference}, points"
    return table([*heads[:-1], f"{heads[-1]} [95% t{together}]", "p (corrected) [of the test]"], rows)


def ablation(record: Record) -> Iterator[str]:
    """Lines about an ablation of one network."""
    yield from arms(record)
    yield from ("", *wrapped(record["conclusion"]))
    for name in ("pairing", "over_seeds_and_images"):
        if record.get(name):
            yield from ("", *wrapped(record[name]))
    yield from ("", *wrapped(provenance(record)))


def ablations(record: Record) -> Iterator[str]:
    """Lines about an ablation of several networks."""
    for network, of_network in record.items():
        yield from (f"**{network}**", "")
        yield from ablation(of_network)
        yield ""


def gains(record: Record) -> Iterator[str]:
    """Lines about what dropout gains with and without BatchNorm."""
    for name, of_data in record.items():
        yield from (f"**{name}**", "")
        rows = [[gain, f"{c['n']}", *compared(c, 1)] for gain, c in of_data["contrasts"].items()]
        heads = "gain of dropout", "n", "points [95% t, jointly]", "p (corrected) [of the test]"
        yield from table(heads, rows)
        yield from ("", *wrapped(of_data["answer"]), "", *wrapped(provenance(of_data)), "")


def published(record: Record) -> Iterator[str]:
    """Lines about published values and ours."""
    for name, of_network in record.items():
        measures = {name: of for name, of in of_network.items() if isinstance(of, dict) and "within" in of}
        yield from (f"**{name}**", "")
        rows = [
            [
                measure,
                "-" if of["published"] is None else f"{of['published']:g}",
                f"{of['mean']:.4g} ± {of['sd']:.2g}",
                "-" if of["low"] is None else f"{of['low']:.4g} to {of['high']:.4g}",
                {True: "yes", False: "no", None: "-"}[of["within"]],
            ]
            for measure, of in measures.items()
        ]
        yield from table(["measure", "published", "ours ± sd", "95% prediction interval", "within"], rows)
        if "answer" in of_network:
            yield from ("", *wrapped(of_network["answer"]))
        yield from ("", *wrapped(provenance(of_network)), "")


def provenance(record: Record) -> str:
    """Say where numbers come from: protocol, plan, machine, date."""
    made, plan = record["made"], record.get("plan")
    text = f"({record['protocol']}. ± is the standard deviation over seeds. "
    if plan:
        first, last = plan["first_seed"], plan["first_seed"] + plan["seeds"] - 1
        text += f"Seeds {first} to {last}; plan {plan['sha256'][:12]}. "
    machine = f"{made['processor']}, {made['host']['cpus']} cores, {made['device']['kind']}"
    return f"{text}{machine}, JAX {made['versions']['jax']}, {made['date']}.)"


def wrapped(text: str) -> list[str]:
    """Return the lines of a paragraph."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


SECTIONS: Mapping[str, Callable[[Record], Iterator[str]]] = {
    "dropout_ablation": ablation,
    "pooling_ablation": ablations,
    "batchnorm_or_dropout": gains,
    "reproduce_tutorials": published,
    "dropout_paper": published,
}


def rewritten(page: str, summaries: Mapping[str, Record]) -> str:
    """Return the page with the sections of these summaries written anew."""
    for name, record in summaries.items():
        lines = "\n".join(SECTIONS[name](record)).strip()
        marks = re.compile(f"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.S)
        page = marks.sub(lambda found, lines=lines: f"{found[1]}\n{lines}\n{found[2]}", page)
    return page


def stored(docs: Path = DOCS) -> dict[str, Record]:
    """Read the summaries that the page is written from."""
    paths = {name: docs / "evidence" / f"{name}.json" for name in SECTIONS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def main() -> None:
    """Copy the summaries and rewrite the page."""
    (DOCS / "evidence").mkdir(exist_ok=True)
    for name in SECTIONS:
        summary = Path("results") / name / "summary.json"
        if summary.exists():
            shutil.copyfile(summary, DOCS / "evidence" / f"{name}.json")
            print(f"{name}: from {summary}")
    page = DOCS / "evidence.md"
    page.write_text(rewritten(page.read_text(), stored()))
    print(f"written: {page}")


if __name__ == "__main__":
    sys.exit(main())
