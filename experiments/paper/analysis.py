"""How each item is trained, compared and drawn."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax import files, report
from cnnjax.api.ablation import run, settings
from cnnjax.data import Dataset, split, subset
from cnnjax.experiment import Arm, Plan, Protocol, Splits
from cnnjax.experiment.results import Results
from cnnjax.plots import Figure
from cnnjax.plots.arms import metric_bands
from cnnjax.state import TrainState
from cnnjax.stats import Contrast, conclusion, summarise
from cnnjax.stats.contrasts import compare
from cnnjax.stats.sentences import enumerated, plural
from cnnjax.task import Task
from paper.comparison import Errors, compared, reported
from paper.figures import beside_paper, error_lines
from paper.items import FIXED_N, FIXED_PN, MARGIN, SAMPLES, SIZES, Conditions, Item
from paper.sampling import error_by_samples
from paper.training import momentum_sgd

Figures = dict[str, Callable[[], Figure]]
Outcome = tuple[dict[str, Any], Figures]


class Setting(NamedTuple):
    """What the items share."""

    protocol: Protocol
    splits: Splits  # all training images; the test images twice
    plan: Callable[..., Plan]  # (hypothesis, family, primary), see `cnnjax.cli.flags.Flags.plan`
    options: Mapping[str, Any]  # of `experiment.run`
    rehearsal: bool

    @property
    def steps(self) -> int:
        """Updates in a pass over the training images."""
        return -(-len(self.splits.train.labels) // self.protocol.batch_size)

    def train(self, arms: Conditions, plan: Plan, where: Path, **options: Any) -> tuple[Results, Errors, str]:
        """Train arms; return the results, the final test errors as fractions, and a caption."""
        classes, updates = self.splits.train.classes, self.protocol.epochs * self.steps
        given = [
            Arm(name, network.clone(classes=classes), hparams._replace(updates=updates), momentum_sgd)
            for name, (network, hparams) in arms.items()
        ]
        results = run(given, self.protocol, self.splits, where, **self.options, plan=plan, **options)
        errors = dict(zip(results.arms, 1 - results.final("test_accuracy"), strict=True))
        return results, errors, f"{settings(given, self.protocol, self.splits)}, {updates:,} updates"


def table(setting: Setting, item: Item, where: Path) -> Outcome:
    """Compare the arms with the first one, and with the paper."""
    record, figures, _ = _arms_compared(setting, item, where)
    return record, figures


def _arms_compared(setting: Setting, item: Item, where: Path) -> tuple[dict[str, Any], Figures, Errors]:
    plan = setting.plan(item.question, tuple(item.arms)[1:], item.primary)
    results, errors, caption = setting.train(item.arms, plan, where)
    values, names = np.stack(list(errors.values())), list(errors)
    options = {"primary": item.primary, "margin": MARGIN, "alpha": results.alpha}
    summary = summarise(values, names, higher_is_better=False, **options)
    answer = conclusion(summary, "test error", accuracy=True, rehearsal=setting.rehearsal)
    comparisons = compared(errors, item.published)
    record = reported(results, comparisons, summary.contrasts, answer, caption, setting.rehearsal)
    epochs, curves = np.arange(1, results.epochs + 1), 1 - results.values["val_accuracy"]
    bands = partial(metric_bands, epochs, curves, names, "test error", title=item.name, caption=caption)
    percent = {arm: 100 * of for arm, of in errors.items()}
    final = partial(beside_paper, percent, item.published, title=item.name, caption=caption)
    figures: Figures = {"test_error.png": bands, "beside_paper.png": final}
    return record, figures, errors


def table10(setting: Setting, item: Item, where: Path) -> Outcome:
    """Compare the arms, and train them for a quarter and for half of the updates as well."""
    record, figures, whole = _arms_compared(setting, item, where)
    epochs = setting.protocol.epochs
    plan = setting.plan(item.question, tuple(item.arms)[1:], item.primary)
    errors: dict[int, Errors] = {}
    for count in sorted({max(1, epochs // 4), max(1, epochs // 2)} - {epochs}):
        shorter = setting._replace(protocol=replace(setting.protocol, epochs=count))
        errors[count] = shorter.train(item.arms, plan, where / f"{count} epochs")[1]
    errors[epochs] = whole
    updates = np.array(list(errors)) * setting.steps
    lines = {arm: (updates, 100 * np.stack([of[arm] for of in errors.values()])) for arm in item.arms}
    means = {arm: np.nanmean(values, axis=1) for arm, (_, values) in lines.items()}
    listed = "; ".join(f"{arm} {', '.join(f'{mean:.2f}' for mean in of)}" for arm, of in means.items())
    ladder = f"Mean test error, %, after {enumerated(f'{n:,}' for n in updates)} updates: {listed}."
    report.say(ladder)
    record["updates"] = {"updates": updates.tolist(), **{arm: of.tolist() for arm, of in means.items()}}
    record["answer"] += f" {ladder}"
    figures["error_against_updates.png"] = partial(
        error_lines,
        lines,
        "updates (each point is a training of its own, whose learning rate ends at 0)",
        log=True,
        title="What more updates bring",
        caption=record["protocol"],
    )
    return record, figures


def choice(setting: Setting, item: Item, where: Path) -> Outcome:
    """Name the settings with the lowest error on 10,000 validation images, which replace the test images."""
    train, val = split(setting.splits.train, 5 / 6)
    held_out = setting._replace(splits=replace(setting.splits, train=train, val=val, test=val))
    results, errors, caption = held_out.train(item.arms, setting.plan(item.question, ()), where)
    noises: dict[str, dict[str, float]] = {}
    for arm, values in errors.items():
        noises.setdefault(arm.split(",")[0], {})[arm] = float(100 * np.mean(values))
    best = [min(means.items(), key=lambda arm: (np.isnan(arm[1]), arm[1])) for means in noises.values()]
    answer = f"Lowest mean error: {enumerated(f'{arm} ({mean:.2f}%)' for arm, mean in best)}."
    comparisons = compared(errors, {})
    return reported(results, comparisons, (), answer, caption, False, "validation error"), {}


def figure9(setting: Setting, item: Item, where: Path) -> Outcome:
    """Compare the arms, and draw the test error against the probability of retaining a unit."""
    record, figures, errors = _arms_compared(setting, item, where)
    lines = {}
    for prefix in (FIXED_N, FIXED_PN):
        arms = sorted((float(arm.removeprefix(prefix)), arm) for arm in errors if arm.startswith(prefix))
        values = 100 * np.stack([errors[arm] for _, arm in arms])
        lines[prefix.split(",")[0]] = np.array([p for p, _ in arms]), values
    figure = partial(error_lines, lines, "probability p of retaining a hidden unit")
    figures["figure9.png"] = partial(figure, title=item.name, caption=record["protocol"])
    return record, figures


def figure10(setting: Setting, item: Item, where: Path) -> Outcome:
    """Compare dropout with none on training sets of several sizes, each for the same number of updates.

    A small set is repeated, so that the number of images does not change the number of updates.
    """
    everything = setting.splits.train
    total = min(max(SIZES), len(everything.labels))
    sizes = [size for size in SIZES if size <= total]
    plan = setting.plan(item.question, tuple(f"{size:,} images" for size in sizes))
    none, dropout = item.arms
    trained = []
    for size in sizes:
        train = repeated(subset(everything, size), total)
        of_size = setting._replace(splits=replace(setting.splits, train=train))
        trained.append(of_size.train(item.arms, plan, where / f"{size} images"))
    results, _, caption = trained[-1]
    caption = f"{enumerated(f'{size:,}' for size in sizes)} images, repeated up to {caption}"
    gains = [errors[none] - errors[dropout] for _, errors, _ in trained]
    contrasts = compare(gains, plan.family, [none] * len(gains), margin=MARGIN, alpha=results.alpha)
    by_size = {
        f"{name}, {arm}": of[arm] for name, (_, of, _) in zip(plan.family, trained, strict=True) for arm in of
    }
    record = reported(
        results, compared(by_size, {}), contrasts, gained(contrasts), caption, setting.rehearsal
    )
    lines = {
        arm: (np.array(sizes), 100 * np.stack([errors[arm] for _, errors, _ in trained])) for arm in item.arms
    }
    figure = partial(error_lines, lines, "training images", log=True)
    return record, {"figure10.png": partial(figure, title=item.name, caption=caption)}


def gained(gains: tuple[Contrast, ...]) -> str:
    """Say with how many images dropout lowers the error, and where most."""
    if not all(gain.can_claim for gain in gains):
        n, needed = min(gain.n for gain in gains), max(gain.needed for gain in gains)
        return f"{n} seeds are too few to test the gains of dropout; use at least {needed}."
    helps = [gain.arm for gain in gains if gain.significant and gain.difference > 0]
    where = f"with {enumerated(helps)}" if helps else "with no number of images"
    most = max(gains, key=lambda gain: gain.difference)
    size = f"{100 * most.difference:.2f} points"
    return f"Dropout lowers the test error significantly {where}; it gains most, {size}, with {most.arm}."


def repeated(data: Dataset, total: int) -> Dataset:
    """Repeat a data set up to so many images."""
    index = np.resize(np.arange(len(data.labels)), total)
    return data._replace(images=data.images[index], labels=data.labels[index])


def figure11(setting: Setting, item: Item, where: Path) -> Outcome:
    """Compare averages over sampled masks with one pass without masks."""
    ((arm, (network, hparams)),) = item.arms.items()
    task = Task(network.clone(classes=setting.splits.train.classes), momentum_sgd)
    counts, sample = np.arange(1, SAMPLES + 1), error_by_samples(task, SAMPLES)

    def path(seed: int) -> Path:
        return where / "samples" / f"seed {seed}.csv"

    def average(_: str, seed: int, state: TrainState) -> None:
        errors = sample(state, hparams, setting.splits.test)
        files.make_directory(path(seed).parent)
        files.write_csv(path(seed), ("samples", "error"), zip(counts.tolist(), errors.tolist(), strict=True))

    tested = (10, 50, SAMPLES)
    plan = setting.plan(item.question, tuple(f"{count} samples" for count in tested))
    results, errors, caption = setting.train(item.arms, plan, where, on_trained=average)
    scaled, sampled = errors[arm], np.stack([_read(path(seed)) for seed in results.seeds], axis=1)
    contrasts = compare(
        [sampled[count - 1] - scaled for count in tested],
        plan.family,
        ["weight scaling"] * len(tested),
        higher_is_better=False,
        margin=MARGIN,
        alpha=results.alpha,
    )
    reached = counts[sampled.mean(axis=1) <= np.nanmean(scaled)]
    answer = f"Up to {SAMPLES} samples the mean error stays above that of weight scaling."
    if len(reached):
        answer = f"The mean error of {reached[0]} samples is the first not above that of weight scaling."
    shown = {"weight scaling": scaled} | {
        plural(count, "sample"): sampled[count - 1] for count in (1, *tested)
    }
    answer += " In the paper it is that of about 50."
    record = reported(results, compared(shown, {}), contrasts, answer, caption, setting.rehearsal)
    lines = {
        "Monte-Carlo average": (counts, 100 * sampled),
        "weight scaling": (counts, np.broadcast_to(100 * scaled, sampled.shape)),
    }
    figure = partial(error_lines, lines, "sampled masks", log=True)
    return record, {"figure11.png": partial(figure, title=item.name, caption=caption)}


def _read(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([float(row["error"]) for row in csv.DictReader(file)])


ANALYSES: Mapping[str, Callable[[Setting, Item, Path], Outcome]] = {
    "table10": table10,
    "figure11": figure11,
    "figure10": figure10,
    "table9": table,
    "figure9": figure9,
    "table2": table,
    "choice": choice,
}
