"""Lines about how fast cnnjax is: on an accelerator, beside its peers, and on the way to 99%."""

from collections.abc import Iterator

from sections.markdown import Record, around, machine, table, wrapped

PEERS = {
    "keras-tensorflow": "Keras on TensorFlow",
    "keras-jax": "Keras on JAX",
    "torch": "PyTorch",
    "flax": "plain Flax",
}
HALF = "half width of the 95% t interval"


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
        f"{name} {of['seconds']:.3f} s ({around(of['mean test accuracy'], of[HALF], '.2f', '%')})"
        for name, of in runs.items()
        if isinstance(of, dict)
    ]
    yield from wrapped(
        f"Speedrun, median of {runs['runs of each']} runs, and mean test accuracy: {', '.join(times)}. "
        f"bfloat16 minus float32 in validation accuracy, over {bfloat16['paired seeds']} paired seeds of "
        f"{bfloat16['epochs']} epochs: "
        f"{around(bfloat16['bfloat16 minus float32'], bfloat16[HALF], '+.3f', ' points')}. "
        "In brackets, 95% t intervals."
    )
    yield from ("", *wrapped(f"({machine(record['made'])}.)"))


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


def speedrun(record: Record) -> Iterator[str]:
    """Lines about both recipes."""
    rows = [
        [
            f"{side['entry']} (n = {side['seeds']})",
            around(side["accuracy"], side["half_width"], ".3f"),
            f"{side['seconds']:.2f}",
            f"{side['processor_seconds']:.2f}",
        ]
        for side in record["sides"]
    ]
    yield from table(
        ["recipe", "mean test accuracy, % [95% t]", "seconds by the clock", "processor seconds"], rows
    )
    clock, processor = record["times as fast"], record["times as fast, processor time"]
    yield ""
    yield from wrapped(
        f"In pairs, cnnjax is {clock['median']:.2f} times as fast by the clock ({clock['least']:.2f} to "
        f"{clock['greatest']:.2f}) and {processor['median']:.2f} times in processor time "
        f"({processor['least']:.2f} to {processor['greatest']:.2f}). Times are medians over launches "
        f"({record['sides'][0]['launches']}). Other processes kept "
        f"{record['cores that other processes kept busy']:.2f} cores busy."
    )
    yield from ("", f"({machine(record['made'])}.)")


def benchmark(record: Record) -> Iterator[str]:
    """Lines about peers: median seconds, and the ratio to cnnjax with its range."""
    every = [{line["peer"]: line for line in setting["peers"]} for setting in record["settings"]]
    others = [peer for peer in PEERS if peer in every[0]]
    counted = any(lines["cnnjax"]["of_ceiling"] is not None for lines in every)
    rows = []
    for setting, lines in zip(record["settings"], every, strict=True):
        members = f", each of {setting['members']}" * (setting["members"] > 1)
        ours = lines["cnnjax"]
        rows.append(
            [
                f"{setting['model']}, {setting['batch_size']}{members}",
                f"{ours['seconds']:#.3g}" + "*" * (not ours["quiet"]),
                *([f"{100 * ours['of_ceiling']:.0f}%"] if counted else []),
                *(
                    f"{of['seconds']:#.3g} ({of['ratio']:.1f}, {of['least']:.1f} to {of['greatest']:.1f})"
                    for of in (lines[peer] for peer in others)
                ),
            ]
        )
    heads = ["network, batch", "cnnjax", *["of the ceiling"] * counted, *(PEERS[peer] for peer in others)]
    yield from table(heads, rows)
    busy, best = record["busy_cores_elsewhere"]["median"], record["ceilings"]
    fewest, *_, most = sorted(2 * [lines["cnnjax"]["launches"] for lines in every])
    launches = f"{fewest} launch" + "es" * (fewest > 1) if fewest == most else f"{fewest} to {most} launches"
    yield ""
    yield from wrapped(
        f"({record['machine']['cpu']}, {record['machine']['cores']} cores, {record['date']}. Medians of "
        f"{launches}, of the quiet rounds of each; * of all, where none was quiet. Best rates "
        f"{best['flops'] / 1e9:.0f} GFLOP/s and {best['bandwidth'] / 1e9:.0f} GB/s; other processes kept "
        f"{busy:.2f} cores busy.)"
    )


def scaling(record: Record) -> Iterator[str]:
    """Lines about a step's time over batch sizes, devices and populations."""
    alone = record["parts"]["32"]["and dropout"]
    for sentence in record["sentences"]:
        yield f"- {sentence}"
    for batch, of in record["speed-up"].items():
        times = ", ".join(f"{ratio:.2f} on {count} devices" for count, ratio in of.items())
        yield f"- Speed-up of {batch} over one device: {times}."
    each = record["seconds a step and network"].items()
    times = ", ".join(f"{seconds / alone:.2f} of {count} networks" for count, seconds in each)
    yield f"- Time of each network in one program, in times of one alone: {times}."
    yield from ("", *wrapped(f"({record['protocol']}. Medians over launches. {machine(record['made'])}.)"))
