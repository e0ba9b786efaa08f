"""Run an ablation: train every arm with the same seeds, and keep the results on disk.

arms = [Arm(f"rate {rate:g}", ConvNet(), HParams(1e-3, rate)) for rate in (0.0, 0.5)]
protocol = Protocol(epochs=5, seeds=6)
results = run(arms, protocol, prepare(protocol), Path("results/mine"))
print(conclusion(summarise(results.final("val_accuracy"), results.arms), "accuracy", accuracy=True))
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Literal

import jax
import numpy as np

from cnnjax import files
from cnnjax.data import Dataset
from cnnjax.devices.layouts import require_backend
from cnnjax.devices.processes import fetch, from_leader
from cnnjax.errors import UserError
from cnnjax.experiment import checks, environments
from cnnjax.experiment.identity import identity
from cnnjax.experiment.ledger import Ledger
from cnnjax.experiment.plans import require_plan
from cnnjax.experiment.protocol import Arm, Protocol, Splits
from cnnjax.experiment.results import Predictions, Results, Store
from cnnjax.keys import StreamSeeds
from cnnjax.metrics import example_loss, means
from cnnjax.optimizers import make_optimizer
from cnnjax.population import PopulationProgram, default_chunk, make_population, stack
from cnnjax.state import TrainState
from cnnjax.stats.plan import Plan
from cnnjax.task import Task, to_unit_interval
from cnnjax.train import Arrays, to_device

STATE_BYTES = 2**26
"""Larger states are saved less often: after every k-th epoch, where this fits k - 1 times into the state."""

OnNan = Literal["stop", "continue"]
Report = Callable[[int, int], None]  # network-epochs done, total
OnTrained = Callable[[str, int, TrainState], None]  # arm, seed, final state


def run(
    arms: Sequence[Arm],
    protocol: Protocol,
    splits: Splits,
    out: Path,
    *,
    chunk: int | None = None,
    probes: Mapping[str, Dataset] | None = None,
    on_nan: OnNan = "stop",
    report: Report = lambda done, total: None,
    plan: Plan | None = None,
    replan: bool = False,
    on_trained: OnTrained | None = None,
) -> Results:
    """Train every arm with the protocol's seeds, and update results.csv in `out` after every epoch.

    Results that `out` already holds are not recomputed: an interrupted experiment resumes after the last
    epoch whose state it saved, and one with more seeds computes only the new ones. The test images are used
    once, at the end, unless the protocol trains on all images and validates on them (`train_split="all"`).

    Args:
        arms: the first one is the reference.
        protocol: the settings they share.
        splits: the data.
        out: results directory, created if missing.
        chunk: number of networks to `vmap`; by default chosen for the backend.
        probes: further data sets to evaluate after the last epoch; a probe "turned" adds the columns
            turned_loss and turned_accuracy.
        on_nan: if the loss of a network is not finite, "stop" raises and keeps the epochs before, and
            "continue" goes on, to count the network as diverged in the statistics.
        report: called with the network-epochs done and their total.
        plan: what will be claimed; written to plan.json before the first epoch. By default the one that is
            there, or else one that promises nothing.
        replan: allow another plan than the one that the results in `out` were computed under.
        on_trained: called with each network after its last epoch, before that epoch's row is written; so a
            network that is not trained again has been passed to it.

    Raises:
        ArgumentError: `out` is a file, or holds results of another protocol or plan, or an arm is wrong in
            itself or for the data (see `cnnjax.experiment.checks`), or the plan does not fit to them. Nothing
            is written then.
        UserError: `out` cannot be written or is in use by another process, or a network diverged and
            `on_nan` is "stop"; or this is one of several processes, and process 0 was started otherwise.
    """
    require_backend()
    checks.require_arms(arms, protocol)
    checks.require_data(splits, probes or {}, protocol.batch_size)
    names, seeds = [arm.name for arm in arms], protocol.numbers
    if plan is not None:
        require_plan(plan, names, seeds)
    groups = _groups(arms)
    tasks = [_task(group[0], protocol, len(splits.train.labels)) for group in groups]
    for group, task in zip(groups, tasks, strict=True):
        checks.require_model(group[0], task, splits.train)
    settings = identity(arms, protocol, splits, probes)
    here = files.circumstances() | settings | {"seeds": seeds}
    files.require_same(from_leader(here), here)
    with files.claimed(out):
        store = Store(out, settings)
        train, val, test = (to_device(part) for part in (splits.train, splits.val, splits.test))
        final_data = {"test": test} | {name: to_device(probe) for name, probe in (probes or {}).items()}
        width = jax.device_count() * (chunk or default_chunk(jax.default_backend()))
        last = [store.rows.get((name, seed, protocol.epochs), {}) for name in names for seed in seeds]
        checks.require_probed(last, probes or {}, out)
        default = Plan(family=tuple(names[1:]), seeds=protocol.seeds, first_seed=protocol.first_seed)
        ledger = Ledger(out, plan, default, store.count, replan)
        for group, task in zip(groups, tasks, strict=True):
            if any(store.lacks((arm.name, seed), protocol.epochs) for arm in group for seed in seeds):
                checks.require_determined(group[0], task, splits.train)
        cells = list(product(names, seeds, range(1, protocol.epochs + 1)))

        def report_progress() -> None:
            report(sum(cell in store.rows for cell in cells), len(cells))

        report_progress()
        for group, task in zip(groups, tasks, strict=True):
            program = make_population(
                task,
                train,
                val,
                batch_size=protocol.batch_size,
                chunk=chunk,
                own=StreamSeeds(protocol.init_seed, protocol.order_seed, protocol.mask_seed),
            )
            for block in _blocks(group, seeds, protocol.epochs, width, store):
                ledger.write()
                store.begin()
                environments.add(out)
                began = perf_counter()
                trained = _train_block(program, block, protocol.epochs, final_data, store, on_nan, on_trained)
                for _ in trained:
                    store.time(len(block), perf_counter() - began)
                    report_progress()
                    began = perf_counter()
        ledger.write()
        evidence = ledger.look(seeds)
        evidence = evidence._replace(remarks=(*evidence.remarks, *environments.remarks(out)))
        return store.results(names, seeds, protocol.epochs)._replace(evidence=evidence)


Member = tuple[Arm, int]  # an arm and a seed


def _groups(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Group arms that can share a compiled program."""
    groups: dict[Hashable, list[Arm]] = {}
    for arm in arms:
        alike = arm.model, arm.optimizer, arm.loss, arm.preprocess, arm.augment, type(arm.hparams)
        groups.setdefault(alike, []).append(arm)
    return list(groups.values())


def _task(arm: Arm, protocol: Protocol, examples: int) -> Task:
    """Return what the arm trains."""
    optimizer = arm.optimizer or protocol.optimizer
    if isinstance(optimizer, str):
        steps = protocol.epochs * -(-examples // protocol.batch_size)
        optimizer = make_optimizer(optimizer, protocol.schedule, steps)
    loss, preprocess = arm.loss or example_loss, arm.preprocess or to_unit_interval
    return Task(arm.model, optimizer, loss, preprocess, arm.augment)


def _blocks(
    group: Sequence[Arm], seeds: Sequence[int], epochs: int, width: int, store: Store
) -> Iterator[list[Member]]:
    """Yield the unfinished members, at most `width` at a time, all arms of a seed before the next seed.

    Blocks are of one size, as far as the number of devices allows: each size compiles a program of its own.
    Members whose training was interrupted come first, as the block that they were.
    """
    pending = [(arm, seed) for seed in seeds for arm in group if store.lacks((arm.name, seed), epochs)]
    interrupted = store.state_members()
    resumed = [(arm, seed) for arm, seed in pending if (arm.name, seed) in interrupted]
    if resumed and len(resumed) == len(interrupted):
        yield resumed
        pending = [member for member in pending if member not in resumed]
    size = _divisible(-(-len(pending) // max(1, -(-len(pending) // width))))
    for start in range(0, len(pending), max(1, size)):
        yield pending[start : start + size]


def _divisible(members: int) -> int:
    """Round up to a multiple of the number of devices."""
    return members + -members % jax.device_count()


def _train_block(
    program: PopulationProgram,
    block: list[Member],
    epochs: int,
    final_data: Mapping[str, Arrays],
    store: Store,
    on_nan: OnNan,
    on_trained: OnTrained | None,
) -> Iterator[None]:
    """Train one block to the end, yielding after the rows of each epoch are on disk."""
    members = [(arm.name, seed) for arm, seed in block]
    # The devices divide the members; copies of the last one fill what is missing.
    padded = block + block[-1:] * (_divisible(len(block)) - len(block))
    seeds = np.array([seed for _, seed in padded], np.uint32)
    population = program.start(seeds, stack([arm.hparams for arm, _ in padded]))
    population, done = store.restore(population, members)
    every = 1 + sum(leaf.nbytes for leaf in jax.tree.leaves(population)) // STATE_BYTES
    for epoch in range(done + 1, epochs + 1):
        population, sums = program.epoch(population, epoch - 1)
        diverged = ~np.all([np.isfinite(leaf) for leaf in jax.tree.leaves(fetch(sums))], axis=0)[: len(block)]
        if on_nan == "stop" and diverged.any():
            name, seed = members[int(np.argmax(diverged))]
            raise UserError(
                f"the loss of {name}, seed {seed}, is not finite in epoch {epoch}: training diverged; the "
                "epochs before are kept, and --on-nan continue counts it as diverged and goes on"
            )
        measured = {"": sums.optimized, "train_": sums.train, "val_": sums.val}
        if epoch == epochs:
            for name, data in final_data.items():
                measured[f"{name}_"], logits = program.evaluate(population, data)
                if name == "test":
                    for member, *prediction in zip(members, *Predictions.of(fetch(logits)), strict=False):
                        store.keep(*member, Predictions(*prediction))
            if on_trained is not None:
                for i, member in enumerate(members):
                    on_trained(*member, jax.tree.map(lambda leaf, i=i: leaf[i], population.state))
        columns = {
            f"{prefix}{metric}": values
            for prefix, part in measured.items()
            for metric, values in means(fetch(part)).items()
        }
        for i, member in enumerate(members):
            store.rows[*member, epoch] = {
                # A network with NaN logits still predicts some class, so its accuracy is meaningless.
                column: float("nan") if diverged[i] else float(values[i])
                for column, values in columns.items()
            }
        store.write()
        if epoch % every == 0:
            store.save(population, members, epoch)
        yield
