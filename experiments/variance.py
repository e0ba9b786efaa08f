"""Where does the variance of one network's accuracy come from?

Sources: the initial weights, the order of the training images, the dropout masks, and the split into training
and validation images. Each of them varies over the seeds while the others have the seed --init-seed,
--order-seed, --mask-seed or --split-seed (0 by default); in "all" the first three vary together, on one split
(Bouthillier et al. 2021). The test images are a source of their own: on other images of the same kind, the
accuracy p of a network on N of them has the variance p (1 - p) / N.

Protocol: that of dropout_ablation.py at rate 0.5, with 20 seeds a source, 100 networks: the interval of
a standard deviation then reaches from 0.76 to 1.46 times its estimate.

Statistics: the sd over seeds with its chi-squared 95% interval, and its share in variance of "all" with its F
interval; both assume normal accuracies. Shares need not add up to 1: sources interact, and each is measured
at one setting of the others. It writes results.csv, summary.json and variance.png; interrupted, it resumes.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from common import convnet_named, start

from cnnjax import experiment, files, report
from cnnjax.api.ablation import run, settings
from cnnjax.cli.flags import OptimizerFlags
from cnnjax.cli.runner import OutDirectory
from cnnjax.data import load
from cnnjax.devices.processes import leads
from cnnjax.experiment import Arm, Protocol
from cnnjax.experiment.protocol import divide
from cnnjax.plots.style import COLOURS, Figure, frame
from cnnjax.stats.contrasts import plain
from cnnjax.stats.intervals import FEWEST
from cnnjax.stats.sentences import REHEARSAL, enumerated
from cnnjax.stats.variance import Spread

STREAMS = {"initial weights": "init_seed", "order": "order_seed", "masks": "mask_seed"}
SOURCES = ("all", *STREAMS, "split")
HEADS = ("source", "n", "sd, points [95%]", "share of all, % [95%]")
QUICK = {"seeds": 4, "epochs": 2, "train_size": 6_000}


def protocol_of(source: str, protocol: Protocol) -> Protocol:
    """Return the protocol in which, on one split, only this source varies over the seeds."""
    varied = STREAMS.values() if source == "all" else [STREAMS.get(source)]
    return replace(
        protocol,
        **{name: None if name in varied else getattr(protocol, name) or 0 for name in STREAMS.values()},
    )


def parts(source: str, protocol: Protocol, out: Path) -> dict[Path, Protocol]:
    """Return the experiments of a source by directory.

    They are one, except for the split: the networks of an experiment share it, so each network is one.
    """
    where, only = out / source.replace(" ", "-"), protocol_of(source, protocol)
    if source != "split":
        return {where: only}
    return {
        where / f"{seed}": replace(only, seeds=1, first_seed=seed, split_seed=seed) for seed in only.numbers
    }


def conclusion(spreads: dict[str, Spread], images: float, rehearsal: bool) -> str:
    """State the shares in a sentence; `images` is the sd over test images, like the others in points."""
    if min(s.n for s in spreads.values()) < FEWEST:
        return f"{REHEARSAL}."
    (_, every), *others = spreads.items()
    share = "{:.0f}% for the {} ({:.0f} to {:.0f}%)".format
    shares = enumerated(
        share(100 * s.share, name, 100 * s.share_low, 100 * s.share_high) for name, s in others
    )
    sd = f"{every.sd:.3f} points (95% interval {every.low:.3f} to {every.high:.3f})"
    return (
        f"{REHEARSAL}. " * rehearsal + f"Over seeds, on these images and this split, the sd is {sd}. Varied "
        f"alone, the share in variance is {shares}. Other images would add {images:.3f} points."
    )


def row(source: str, s: Spread) -> list[str]:
    """Return a row of the table, with intervals from `FEWEST` seeds on."""
    sd, share = f"{s.sd:.3f}", f"{100 * s.share:.0f}"
    if s.n >= FEWEST:
        sd += f" [{s.low:.3f}, {s.high:.3f}]"
        share += f" [{100 * s.share_low:.0f}, {100 * s.share_high:.0f}]"
    return [source, str(s.n), sd, "" if source == "all" else share]


def draw(spreads: dict[str, Spread], images: float, caption: str) -> Figure:
    """Draw the sd of each source with its interval, and that of other images."""
    figure, (axis,) = frame(5, 3.2, "Where the variance comes from", caption)
    n, sd, low, high, *_ = np.array(list(spreads.values())).T
    if n.min() >= FEWEST:
        axis.hlines(range(len(sd)), low, high, color=COLOURS[0], linewidth=3)
    axis.plot(sd, range(len(sd)), "o", color=COLOURS[0], markersize=8)
    axis.plot(images, len(sd), "s", color=COLOURS[1], markersize=8)
    axis.set_yticks(range(len(sd) + 1), [*spreads, "other test images"])
    axis.set(xlabel="sd, points, with 95% interval", ylim=(len(sd) + 0.5, -0.5), xlim=(0, None))
    return figure


@dataclass(frozen=True)
class Variance(OptimizerFlags):
    """Train one network many times, with one source of randomness varied at a time."""

    seeds: int = 20
    rate: float = 0.5
    """Dropout rate."""
    model: str = "keras-cnn"
    """Name of the network."""
    out: OutDirectory = None
    """Output directory; results/variance by default."""
    quick: bool = False
    """Run for about a minute: 4 seeds, 2 epochs of 6,000 images."""

    def __call__(self) -> None:
        """Train all networks, print the table and the sentence, and write the figure."""
        out = self.out or Path("results/variance" + "_quick" * self.quick)
        experiment.use_every_core()
        protocol = self.protocol(self.optimizer, self.schedule)
        data = load(protocol.dataset, self.data_dir, announce=report.say)
        splits = divide(data, protocol)
        model = convnet_named(self.model).clone(classes=splits.train.classes)
        arm = Arm("all", model, self.hparams(self.rate))
        rehearsal, measured, rows = self.quick or self.seeds < FEWEST, {}, []
        with files.claimed(out):
            for source in SOURCES:
                arms, measured[source] = [replace(arm, name=source)], []
                for where, part in parts(source, protocol, out).items():
                    measured[source].append(run(arms, part, divide(data, part), where, **self.options(None)))
                    if leads():
                        text = (where / "results.csv").read_text()
                        rows += text.splitlines(keepends=True)[len(rows) > 0 :]
            shared = settings([arm], protocol_of("all", protocol), splits)
            caption = f"{REHEARSAL}. " * rehearsal + f"{self.model} on {self.dataset}, {shared} a source"
            points = {
                source: 100 * np.concatenate([results.final("val_accuracy")[0] for results in of])
                for source, of in measured.items()
            }
            spreads = {source: Spread.of(values, points["all"]) for source, values in points.items()}
            tested = np.nanmean(measured["all"][0].final("test_accuracy"))
            images = float(100 * np.sqrt(tested * (1 - tested) / len(splits.test.labels)))
            sources = {source: plain(s._asdict()) for source, s in spreads.items()}
            record = {"protocol": caption, "rehearsal": rehearsal, "sd_of_other_images": images}
            every = [results for of in measured.values() for results in of]
            remarks = dict.fromkeys(said for results in every for said in results.evidence.remarks)
            said = " ".join([conclusion(spreads, images, rehearsal), *remarks])
            record |= {"sources": sources, "conclusion": said}
            record |= files.made()
            report.say(caption)
            report.print_table(HEADS, [row(*item) for item in spreads.items()])
            report.say(record["conclusion"])
            files.write_bytes(out / "results.csv", "".join(rows).encode())
            files.write_json(out / "summary.json", record)
            report.draw(out, {"variance.png": partial(draw, spreads, images, caption)})
            report.say(f"table, summary and figure in {out}")


if __name__ == "__main__":
    sys.exit(start(Variance, QUICK, __doc__, "variance.py"))
