"""Mid-range curation tried where the confound is planted: `python -m tests.benchmarks.midrange [--small]`.

Drawn shapes whose kind goes with their place, and handwritten digits with a patch. A small network is trained
on all samples alike; its last layer is then trained again on samples chosen in several ways from held-out data.
Prints worst-group accuracy by way, mean ± standard deviation over seeds, as tables of the page
`site_config/guide/midrange.md`, of which `--output FILE.json` and `--figure FILE.svg` write the numbers and the
figure. Takes some minutes; `--small` takes one seed and half a minute.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from atlas_builder.curate import balanced, mid_range
from tests.benchmarks.confounded import Confounded, Numbers, Split, digits, shapes
from tests.benchmarks.midrange_figure import figure
from tests.benchmarks.retraining import Features, Read, group_accuracies, retrained, trained

SHARE = 0.1
"""How much of a split is chosen."""


@dataclass(frozen=True)
class Size:
    """How large a run is: images a split and epochs of shapes, epochs of digits, seeds, redraws of a choice."""

    images: int = 4000
    shape_epochs: int = 30
    digit_epochs: int = 60
    seeds: int = 5
    redraws: int = 20


SMALL = Size(images=2000, shape_epochs=20, seeds=1, redraws=5)

DATA: dict[str, Callable[[Size, int], Confounded]] = {
    "shapes 90 %": lambda size, seed: shapes(0.9, size.images, seed),
    "shapes 95 %": lambda size, seed: shapes(0.95, size.images, seed),
    "digits 95 %": lambda _, seed: digits(0.95, seed),
}


@dataclass(frozen=True)
class Learned:
    """A split and what a network makes of it."""

    split: Split
    read: Read

    @property
    def own(self) -> Features:
        """Each sample's logit of its own class."""
        return self.read.logits[np.arange(len(self.split.labels)), self.split.labels]


Choice = Callable[[Learned, int], Numbers]
"""Places of the chosen samples, ascending, of a split and a seed."""


def _random(learned: Learned, seed: int) -> Numbers:
    count = len(learned.split.labels)
    return np.sort(np.random.default_rng([seed, 3]).choice(count, int(SHARE * count), replace=False))


def _mid(learned: Learned, _: int) -> Numbers:
    return mid_range(learned.read.logits, learned.split.labels, band=(0.0, SHARE))


def _top(learned: Learned, _: int) -> Numbers:
    return mid_range(learned.read.logits, learned.split.labels, band=(1 - SHARE, 1.0))


def _middle_third_of_values(learned: Learned, _: int) -> Numbers:
    chosen = []
    for label in np.unique(learned.split.labels):
        places = np.flatnonzero(learned.split.labels == label)
        own = learned.own[places]
        share = (own - own.min()) / np.ptp(own)
        chosen.append(places[(share >= 1 / 3) & (share < 2 / 3)])
    return np.sort(np.concatenate(chosen))


def _misclassified(learned: Learned, _: int) -> Numbers:
    return np.flatnonzero(learned.read.logits.argmax(axis=1) != learned.split.labels)


def _everything(learned: Learned, _: int) -> Numbers:
    return np.arange(len(learned.split.labels))


@dataclass(frozen=True)
class Way:
    """A way to choose samples for the last layer; with `reads`, class × attribute is balanced, else the class."""

    name: str
    choose: Choice
    reads: bool = False
    on_training: bool = False


ERM = "plain training (ERM)"
MID = Way("mid-range", _mid)
MID_READ = Way("mid-range, attribute read", _mid, reads=True)
RANDOM = Way("random, same size", _random)
TOP = Way("top tenth", _top)
ORACLE = Way("all held-out (DFR, oracle groups)", _everything, reads=True)
WAYS = (
    RANDOM,
    TOP,
    MID,
    Way("mid-range by value", _middle_third_of_values),
    Way("mid-range of training data", _mid, on_training=True),
    Way("misclassified", _misclassified),
    Way("random, attribute read", _random, reads=True),
    MID_READ,
    Way("mid-range of training data, attribute read", _mid, reads=True, on_training=True),
    Way("misclassified, attribute read", _misclassified, reads=True),
    ORACLE,
)
WITHOUT_THE_CLASS = (RANDOM, MID, MID_READ, ORACLE)
"""Ways tried on features of a network that never saw the confound broken."""


@dataclass(frozen=True)
class Outcome:
    """One way on one data set with one seed."""

    data: str
    seed: int
    unbroken: bool
    """Whether the network saw nothing in training that breaks the confound."""
    way: str
    worst: float
    """Accuracy in the worst group of the test."""
    mean: float
    """Mean accuracy over the groups of the test."""
    chosen: int = 0
    breaks: float | None = None
    """Share of the chosen samples that break the confound."""
    read: float = 0.0
    """Share of the split for which the attribute is read."""


@dataclass(frozen=True)
class Tenths:
    """Share of held-out samples that break the confound, by tenths of each class's own logit, lowest first."""

    data: str
    seed: int
    breaks: list[float]


def experiment(data: str, seed: int, size: Size) -> tuple[list[Outcome], Tenths]:
    """All ways on one data set with one seed."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        return _all_ways(data, seed, size)
    finally:
        torch.set_flush_denormal(False)  # else all that this process computes later is without the smallest numbers


def _all_ways(data: str, seed: int, size: Size) -> tuple[list[Outcome], Tenths]:
    confounded = DATA[data](size, seed)
    outcomes, tenths = _tried(data, seed, size, confounded, WAYS)
    if data != "shapes 90 %":  # without exceptions, shapes of either bias have the same training data
        without = replace(confounded, train=confounded.unbroken)
        more, _ = _tried(data, seed, size, without, WITHOUT_THE_CLASS)
        outcomes += [replace(outcome, unbroken=True) for outcome in more]
    return outcomes, tenths


def _tried(
    data: str, seed: int, size: Size, confounded: Confounded, ways: Iterable[Way]
) -> tuple[list[Outcome], Tenths]:
    epochs = size.digit_epochs if data.startswith("digits") else size.shape_epochs
    network = trained(confounded.train, epochs, seed)
    train, held_out, test = (
        Learned(split, network.read(split.images)) for split in (confounded.train, confounded.held_out, confounded.test)
    )
    scored = partial(_scored, data, seed, test)
    outcomes = [scored(ERM, test.read.logits)]
    for way in ways:
        source = train if way.on_training else held_out
        chosen = way.choose(source, seed)
        logits = _retrained_logits(source, chosen, way.reads, test, seed, size.redraws)
        outcome = scored(way.name, logits)
        outcomes.append(
            replace(
                outcome,
                chosen=len(chosen),
                breaks=float(source.split.breaks[chosen].mean()) if len(chosen) else None,
                read=len(chosen) / len(source.split.labels) * way.reads,
            )
        )
    parts = [
        mid_range(held_out.read.logits, held_out.split.labels, band=(tenth / 10, (tenth + 1) / 10))
        for tenth in range(10)
    ]
    return outcomes, Tenths(data, seed, [float(held_out.split.breaks[part].mean()) for part in parts])


def _retrained_logits(
    source: Learned, chosen: Numbers, reads: bool, test: Learned, seed: int, redraws: int
) -> Features:
    """Of the test, by the last layer trained on the chosen samples; as they were where none is chosen."""
    if not len(chosen):
        return test.read.logits
    labels = source.split.groups if reads else source.split.labels
    drawn = [balanced(labels, chosen, seed=1000 * seed + number) for number in range(redraws)]
    return retrained(source.read, source.split.labels, drawn).logits(test.read.features)


def _scored(data: str, seed: int, test: Learned, way: str, logits: Features) -> Outcome:
    accuracies = group_accuracies(logits, test.split)
    return Outcome(data, seed, False, way, float(accuracies.min()), float(accuracies.mean()))


def main_table(outcomes: Sequence[Outcome]) -> str:
    """Worst-group accuracy of every way, what it chose and read."""
    names = list(DATA)
    lines = [
        f"| last layer trained on | {' | '.join(names)} | break the confound | attribute read for |",
        "|" + " --- |" * (len(names) + 3),
    ]
    for way in (ERM, *(way.name for way in WAYS)):
        of_way = [outcome for outcome in outcomes if outcome.way == way and not outcome.unbroken]
        by_data = [[outcome for outcome in of_way if outcome.data == name] for name in names]
        breaks = [_percent([o.breaks for o in each if o.breaks is not None]) for each in by_data]
        reads = [_percent([o.read for o in each]) for each in by_data]
        cells = [
            *(_spread([o.worst for o in each]) for each in by_data),
            " / ".join(breaks) + " %" if way != ERM else "",
            "none" if set(reads) <= {"0", "–"} else " / ".join(reads if len(set(reads)) > 1 else reads[:1]) + " %",
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lacking_table(outcomes: Sequence[Outcome]) -> str:
    """The same of networks that saw no exception in training: their features hardly hold the class."""
    names = sorted({outcome.data for outcome in outcomes if outcome.unbroken}, reverse=True)
    lines = [f"| last layer trained on | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 1)]
    for way in (ERM, *(way.name for way in WITHOUT_THE_CLASS)):
        cells = [
            _spread([o.worst for o in outcomes if o.unbroken and o.way == way and o.data == name]) for name in names
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tenths_table(tenths: Sequence[Tenths]) -> str:
    """How much breaks the confound, by tenths of the own logit."""
    lines = [f"| own logit, tenth | {' | '.join(map(str, range(1, 11)))} |", "|" + " --- |" * 11]
    for name in DATA:
        shares = np.array([each.breaks for each in tenths if each.data == name]).T
        lines.append(f"| {name} | {' | '.join(_percent(tenth) + ' %' for tenth in shares)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}" if len(values) else "–"


def _percent(values: Sequence[float] | Features) -> str:
    """A mean share; below ten per cent with a decimal where that is not nought."""
    if not len(values):
        return "–"
    mean = 100 * float(np.mean(values))
    return f"{mean:.0f}" if mean >= 9.95 or mean == 0 else f"{mean:.1f}".removesuffix(".0")


def run(size: Size, names: Sequence[str] = tuple(DATA), workers: int = 2) -> tuple[list[Outcome], list[Tenths]]:
    """Every data set with every seed, each on one thread: the same numbers for any number of workers."""
    jobs = [(name, seed, size) for seed in range(size.seeds) for name in names]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(experiment, *zip(*jobs, strict=True)))
    return [outcome for outcomes, _ in results for outcome in outcomes], [tenths for _, tenths in results]


def read_results(path: Path) -> tuple[list[Outcome], list[Tenths]]:
    """What `--output` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return [Outcome(**each) for each in found["outcomes"]], [Tenths(**each) for each in found["tenths"]]


def draw(outcomes: Sequence[Outcome], tenths: Sequence[Tenths]) -> str:
    """The figure of the page, as SVG."""
    return figure(
        {name: np.mean([each.breaks for each in tenths if each.data == name], axis=0).tolist() for name in DATA},
        {
            way: {
                name: [o.worst for o in outcomes if o.way == way and o.data == name and not o.unbroken] for name in DATA
            }
            for way in (ERM, *(way.name for way in WAYS))
        },
    )


def main() -> None:
    """Run it, print the tables, write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed of a smaller size")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--figure", type=Path, help="SVG to write")
    options = parser.parse_args()
    outcomes, tenths = run(SMALL if options.small else Size())
    print("\n\n".join([main_table(outcomes), lacking_table(outcomes), tenths_table(tenths)]))
    if options.output:
        results = {"outcomes": [asdict(each) for each in outcomes], "tenths": [asdict(each) for each in tenths]}
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.figure:
        options.figure.write_text(draw(outcomes, tenths), encoding="utf-8")


if __name__ == "__main__":
    main()
