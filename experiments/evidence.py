"""Write the tables of docs/evidence.md and docs/explanation/speed.md from the summaries of experiments.

`make evidence` copies each results/NAME/summary.json that exists to docs/evidence/NAME.json, and rewrites
what stands between the marks <!-- NAME --> and <!-- /NAME --> of the pages from the copies. A test fails
where pages and copies disagree, so a number there is one that the experiment wrote.
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
PAGES = DOCS / "evidence.md", DOCS / "explanation/speed.md"
WIDTH = 120
PEERS = {
    "keras-tensorflow": "Keras on TensorFlow",
    "keras-jax": "Keras on JAX",
    "torch": "PyTorch",
    "flax": "plain Flax",
}
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


def accelerator(record: Record) -> Iterator[str]:
    """Lines about an accelerator: times beside the peers, populations, and what was compared with the CPU."""
    seconds = record["speed"]["seconds per epoch"]
    peers = list(next(iter(seconds.values())))
    ours, *others = peers
    rows = [
        [name, f"{of[ours]:.3f}", *(f"{of[peer]:.3f} ({of[peer] / of[ours]:.1f})" for peer in others)]
        for name, of in seconds.items()
    ]
    yield from table(["network", *peers], rows)
    populations = record["populations"]
    each, best = (
        populations["milliseconds per step and network, by networks and chunk"],
        populations["best chunk"],
    )
    rows = [
        [
            f"{int(count):,}",
            f"{1e3 * each[count][chunk]:.1f}",
            f"{populations['time of all, in times of one'][count]:.1f}",
        ]
        for count, chunk in best.items()
    ]
    yield ""
    yield from table(
        ["networks in one program", "µs per step and network", "time of all, in times of one"], rows
    )
    yield from ("", *wrapped(" ".join(compared_with_cpu(record))), "")
    runs, bfloat16 = record["speedrun"], record["bfloat16"]
    times = [
        f"{name} {of['seconds']:.3f} s ({100 * of['mean test accuracy']:.2f} ± "
        f"{100 * of['half width of the 95% t interval']:.2f}%)"
        for name, of in runs.items()
        if isinstance(of, dict)
    ]
    yield from wrapped(
        f"Speedrun, median of {runs['runs of each']} runs: {', '.join(times)}. bfloat16 minus float32, over "
        f"{bfloat16['paired seeds']} paired seeds of {bfloat16['epochs']} epochs: "
        f"{100 * bfloat16['bfloat16 minus float32']:+.3f} ± "
        f"{100 * bfloat16['half width of the 95% t interval']:.3f} points of validation accuracy."
    )
    yield from ("", *wrapped(f"({machine(record['made'])}.)"))


def speedrun(record: Record) -> Iterator[str]:
    """Lines about both recipes."""
    rows = [
        [
            f"{side['entry']} (n = {side['seeds']})",
            f"{100 * side['accuracy']:.3f} ± {100 * side['half_width']:.3f}",
            f"{side['seconds']:.2f}",
            f"{side['processor_seconds']:.2f}",
        ]
        for side in record["sides"]
    ]
    yield from table(["recipe", "mean test accuracy, %", "seconds by the clock", "processor seconds"], rows)
    clock, processor = record["times as fast"], record["times as fast, processor time"]
    yield ""
    yield from wrapped(
        f"In pairs, cnnjax is {clock['median']:.2f} times as fast by the clock ({clock['least']:.2f} to "
        f"{clock['greatest']:.2f}) and {processor['median']:.2f} times in processor time "
        f"({processor['least']:.2f} to {processor['greatest']:.2f}). 95% t intervals; medians of times. "
        f"Other processes kept {record['cores that other processes kept busy']:.2f} cores busy."
    )
    yield from ("", f"({machine(record['made'])}.)")


def benchmark(record: Record) -> Iterator[str]:
    """Lines about peers: median seconds, and the ratio to cnnjax with its range."""
    measured = {line["peer"] for line in record["settings"][0]["peers"]}
    others, rows = [peer for peer in PEERS if peer in measured], []
    for setting in record["settings"]:
        lines = {line["peer"]: line for line in setting["peers"]}
        members = f", each of {setting['members']}" * (setting["members"] > 1)
        reached = lines["cnnjax"]["of_ceiling"]
        rows.append(
            [
                f"{setting['model']}, {setting['batch_size']}{members}",
                f"{lines['cnnjax']['seconds']:.2f}" + ("*" if not lines["cnnjax"]["quiet"] else ""),
                "" if reached is None else f"{100 * reached:.0f}%",
                *(
                    f"{of['seconds']:.2f} ({of['ratio']:.1f}, {of['least']:.1f} to {of['greatest']:.1f})"
                    for of in (lines[peer] for peer in others)
                ),
            ]
        )
    yield from table(["network, batch", "cnnjax", "of the ceiling", *(PEERS[peer] for peer in others)], rows)
    busy, best = record["busy_cores_elsewhere"]["median"], record["ceilings"]
    yield ""
    yield from wrapped(
        f"({record['machine']['cpu']}, {record['machine']['cores']} cores, {record['date']}. Medians of "
        f"quiet rounds; * of all, where none was quiet. Best rates {best['flops'] / 1e9:.0f} GFLOP/s and "
        f"{best['bandwidth'] / 1e9:.0f} GB/s; other processes kept {busy:.2f} cores busy.)"
    )


def compared_with_cpu(record: Record) -> Iterator[str]:
    """Sentences about what is equal to the CPU, and what is repeatable."""
    if all(record["masks"]["must hold"].values()):
        yield "Dropout masks equal the CPU's bit for bit."
    parts = [of for name, of in record["steps"].items() if "difference" in name]
    full, default = (max(of[precision] for of in parts) for precision in ("full float32", "default"))
    yield f"After three steps in full float32, the parameters differ from the CPU's by {full:.1g} of the way"
    yield f"that they moved; in the device's default precision by {default:.1g}."
    repetition = record["repetition"] | record["repetition"]["must hold"]
    if all(same for name, same in repetition.items() if name.startswith("the same seed")):
        yield "The same seed twice gives the same bits, with and without the flag for determinism."
    ceiling, reached = record["ceiling"], record["ceiling"]["fraction reached"].values()
    flops, bandwidth = ceiling["matrix products, TFLOP/s"], ceiling["memory, GB/s"]
    yield f"The best rates are {flops:.0f} TFLOP/s and {bandwidth:,.0f} GB/s; a step reaches"
    least, most = 100 * min(reached), 100 * max(reached)
    yield f"{least:.1f} to {most:.0f}% of the one that limits it, more with larger batches."


def provenance(record: Record) -> str:
    """Say where numbers come from: protocol, plan, machine, date."""
    made, plan = record["made"], record.get("plan")
    text = f"({record['protocol']}. ± is the standard deviation over seeds. "
    if plan:
        first, last = plan["first_seed"], plan["first_seed"] + plan["seeds"] - 1
        text += f"Seeds {first} to {last}; plan {plan['sha256'][:12]}. "
    return f"{text}{machine(made)}.)"


def machine(made: Record) -> str:
    """Say on what, with which JAX and when results were made."""
    where = f"{made['processor']}, {made['host']['cpus']} cores, {made['device']['kind']}"
    return f"{where}, JAX {made['versions']['jax']}, {made['date']}"


def wrapped(text: str) -> list[str]:
    """Return the lines of a paragraph."""
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


SECTIONS: Mapping[str, Callable[[Record], Iterator[str]]] = {
    "dropout_ablation": ablation,
    "pooling_ablation": ablations,
    "batchnorm_or_dropout": gains,
    "reproduce_tutorials": published,
    "dropout_paper": published,
    "accelerator": accelerator,
    "benchmark_peers": benchmark,
    "benchmark_foreign": benchmark,
    "speedrun": speedrun,
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
