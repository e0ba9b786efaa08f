"""Write the tables of docs/evidence.md and docs/explanation/speed.md from the summaries of experiments.

`make evidence` copies each results/NAME/summary.json that exists to docs/evidence/NAME.json, and rewrites
what stands between the marks <!-- NAME --> and <!-- /NAME --> of the pages from the copies. A test fails
where pages and copies disagree, so a number there is one that the experiment wrote.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sections import accuracy, speed
from sections.markdown import Record

DOCS = Path(__file__).parents[1] / "docs"
PAGES = DOCS / "evidence.md", DOCS / "explanation/speed.md"
SECTIONS: Mapping[str, Callable[[Record], Iterator[str]]] = {
    "dropout_ablation": accuracy.ablation,
    "pooling_ablation": accuracy.ablations,
    "batchnorm_or_dropout": accuracy.gains,
    "reproduce_tutorials": accuracy.published,
    "dropout_paper": accuracy.published,
    "variance": accuracy.variance,
    "accelerator": speed.accelerator,
    "benchmark_peers": speed.benchmark,
    "speedrun": speed.speedrun,
    "benchmark_foreign": speed.benchmark,
    "scaling": speed.scaling,
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
    """Copy the summaries and rewrite the pages."""
    (DOCS / "evidence").mkdir(exist_ok=True)
    for name in SECTIONS:
        summary = Path("results") / name / "summary.json"
        if summary.exists():
            shutil.copyfile(summary, DOCS / "evidence" / f"{name}.json")
            print(f"{name}: from {summary}")
    for page in PAGES:
        page.write_text(rewritten(page.read_text(), stored()))
        print(f"written: {page}")


if __name__ == "__main__":
    sys.exit(main())
