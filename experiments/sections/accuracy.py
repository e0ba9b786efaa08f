"""Lines about what networks reach: ablations, gains, and published values beside ours."""

from collections.abc import Collection, Iterator

from cnnjax.stats.sentences import interval_name
from sections.markdown import Record, interval, provenance, table, wrapped


def compared(of: Record) -> list[str]:
    """Return the cells of a contrast: the difference with its t interval; p with the interval of its test."""
    difference = f"{100 * of['difference']:+.2f}{interval(of['low'], of['high'])}"
    p = f"{of['p']:.3f} ({of['p_holm']:.3f})".replace("0.000", "<0.001")
    ends = of["test_low"], of["test_high"]
    return [difference, p + interval(*ends) if of["can_claim"] else "too few seeds"]


def compared_heads(difference: str, contrasts: Collection[Record]) -> list[str]:
    """Return the heads of `compared`."""
    return [f"{difference} [{interval_name(contrasts)}]", "p (corrected) [of the test]"]


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
    heads = compared_heads(f"difference to {accuracy['arms'][0]['name']}, points", accuracy["contrasts"])
    return table(["arm", "n", "validation accuracy %", "validation loss", *heads], rows)


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
        rows = [[gain, f"{c['n']}", *compared(c)] for gain, c in of_data["contrasts"].items()]
        heads = compared_heads("points", of_data["contrasts"].values())
        yield from table(["gain of dropout", "n", *heads], rows)
        yield from ("", *wrapped(of_data["answer"]), "", *wrapped(provenance(of_data)), "")


def published(record: Record) -> Iterator[str]:
    """Lines about published values and ours, and about the differences between arms."""
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
        if contrasts := of_network.get("contrasts"):
            what = "difference to" if contrasts.keys() <= measures.keys() else "gain over"
            head = f"{what} {next(iter(contrasts.values()))['reference']}"
            heads = [head, "n", *compared_heads("points", contrasts.values())]
            yield ""
            yield from table(heads, [[arm, f"{of['n']}", *compared(of)] for arm, of in contrasts.items()])
        if "answer" in of_network:
            yield from ("", *wrapped(of_network["answer"]))
        yield from ("", *wrapped(provenance(of_network)), "")


def variance(record: Record) -> Iterator[str]:
    """Lines about where the variance of one network comes from."""
    rows = [
        [
            source,
            f"{of['n']}",
            f"{of['sd']:.3f} [{of['low']:.3f}, {of['high']:.3f}]",
            f"{100 * of['share']:.0f} [{100 * of['share_low']:.0f}, {100 * of['share_high']:.0f}]"
            if source != "all"
            else "",
        ]
        for source, of in record["sources"].items()
    ]
    yield from table(["source", "n", "sd, points [95%]", "share of all, % [95%]"], rows)
    yield from ("", *wrapped(record["conclusion"]), "", *wrapped(provenance(record)))
