"""Clusterings compared with known behaviours: `python -m tests.benchmarks.planted [FIGURE.svg]`.

Prints the tables of the prose, and which goals of noise-free linkage are met: units planted
in plain arrays, units of the demo's model that join several real ones, and pairs of
examples of real units that belong together or do not. Takes some minutes; `--units` sets
how many a row has, `--collect` the folders of two collect stages of the demo that there are
already (`.NAME.work/collect`), by the threshold and by the default rule for examples.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer

from atlas_builder.cluster.clustering import cluster
from atlas_builder.cluster.embeddings import cosine_distances
from atlas_builder.collect.results import Collected
from atlas_builder.config import ClusterSettings
from atlas_builder.config_file import validate
from atlas_builder.pipeline.build import build
from atlas_builder.shipped import MODELS
from atlas_builder.workspace import work_folder
from tests.benchmarks.lines import Panel, lines
from tests.support.planted import (
    Joined,
    Kept,
    Labels,
    Plant,
    Planted,
    Score,
    TokenLikeness,
    groups,
    join,
    kept,
    plant,
    pure_units,
    real_units,
    score,
)

METHODS = {
    "linkage": ClusterSettings(method="linkage"),
    "average linkage": ClusterSettings(method="agglomerative", cut=0.55),
    "HDBSCAN": ClusterSettings(method="hdbscan"),
    "components": ClusterSettings(method="components"),
}
JUDGED = "linkage"
"""The method that has goals."""
PLANTS = {
    **{f"{count} behaviour{'s' * (count > 1)}": Plant(count) for count in (1, 2, 3, 5, 8)},
    **{f"3, noise {noise}": Plant(3, noise=noise) for noise in (0.3, 0.8, 1.0)},
    **{f"1, noise {noise}": Plant(1, noise=noise) for noise in (0.8, 1.0)},
    **{f"3, overlap {overlap}": Plant(3, overlap=overlap) for overlap in (0.25, 0.5)},
    **{f"{count}, one of them rare": Plant(count, rare=True) for count in (2, 5)},
    **{f"3, unrelated {share:.0%}": Plant(3, unrelated=share) for share in (0.1, 0.3)},
    **{f"3, {count} examples": Plant(3, count) for count in (20, 50, 500)},
}
HARDER = {
    # Noise at which distances within a behaviour are 0.55 to 0.7.
    **{f"{count}, loose": Plant(count, noise=1.106, noisiest=1.527) for count in (1, 2, 3, 4, 5)},
    **{f"{count}, common mean": Plant(count, common=5.0) for count in (1, 2, 3, 4, 5)},
}
CUTS = (0.5, 0.55, 0.6)
HARD = ("3, noise 1.0", "1, noise 1.0", "3, overlap 0.5", "3, unrelated 30%")
PANELS = {
    "noise": [(noise, Plant(3, noise=noise)) for noise in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5)],
    "overlap": [(overlap, Plant(3, overlap=overlap)) for overlap in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)],
    "share of unrelated examples": [(share, Plant(3, unrelated=share)) for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)],
}
SIZES = (1, 2, 3, 5)


@dataclass
class Goals:
    """What the judged method is to reach, and whether it does."""

    lines: list[str]

    def ask(self, row: str, **asked: tuple[float, float]) -> str:
        """Note the goals of one row, each the number reached and the least that will do; the cell that says so."""
        told = []
        for name, (reached, least) in asked.items():
            met = "met" if reached >= least else "MISSED"
            told.append(f"{name} ≥ {_number(name, least)}: {met}")
            self.lines.append(f"- {row}: {name} ≥ {_number(name, least)}, {met}: {_number(name, reached)}")
        return "; ".join(told)

    def ask_scores(self, row: str, scores: Sequence[Score], agreement: float, exact: float, rare: bool = False) -> str:
        """The same of the scores of a row."""
        asked = {"ARI": (_mean(s.agreement for s in scores), agreement)}
        if exact:
            asked["exact"] = (_mean(s.right_number for s in scores), exact)
        if rare:
            asked["rare found"] = (_mean(s.rare_found for s in scores), 1.0)
        return self.ask(row, **asked)


def main(figure: str | None, collect: tuple[str, str] | None, units: int) -> None:
    """Print the tables and the goals; write the figure where asked."""
    goals = Goals([])
    _planted(units, goals)
    with _demo(collect) as (near_maximum, default):
        _joined(near_maximum, units, goals)
        _linked(default, units, goals)
    print(f"\nGoals of {JUDGED}\n\n" + "\n".join(goals.lines))
    if figure:
        Path(figure).write_text(lines([_panel(axis, plants, units) for axis, plants in PANELS.items()]), "utf-8")


@contextmanager
def _demo(collect: tuple[str, str] | None) -> Iterator[list[Collected]]:
    """The demo's collect stages: those given, or two made for the length of the block.

    The first has the examples that reach three quarters of a unit's maximum, among which many units
    respond to one token, the second those of the default rule.
    """
    if collect:
        yield [Collected(Path(folder)) for folder in collect]
        return
    with TemporaryDirectory() as scratch:
        made = []
        for name, examples in {"threshold": {"policy": "threshold", "threshold": 0.75}, "default": {}}.items():
            corpus = {"source": "stdlib", "max_tokens": 1_000_000}
            settings = validate({"model": {"name": "demo"}, "corpus": corpus, "examples": examples})
            build(settings, Path(scratch) / name, until="collect")
            made.append(Collected(work_folder(Path(scratch) / name) / "collect"))
        yield made


def _planted(count: int, goals: Goals) -> None:
    print("Planted in plain arrays: adjusted Rand index, and units with the right number of behaviours\n")
    _head(["planted", *METHODS, f"goals of {JUDGED}"])
    for name, what in {**PLANTS, **HARDER}.items():
        agreement, exact = (0.9, 0.0) if name in HARDER else (0.98, 0.75 if what.unrelated >= 0.3 else 0.95)
        scores = _by_method([plant(what, seed) for seed in range(count)])
        _row(name, [*scores.values()], goals.ask_scores(name, scores[JUDGED], agreement, exact, what.rare))
    print("\nThe same by the input alone\n")
    _head(["planted", *METHODS])
    for name, what in PLANTS.items():
        _row(name, [*_by_method([plant(what, seed) for seed in range(count)], alone=True).values()])
    print("\nAverage linkage by its cut\n")
    _head(["planted", *(f"{cut:g}" for cut in CUTS)])
    for name in HARD:
        units = [plant(PLANTS[name], seed) for seed in range(count)]
        _row(name, [_scores(units, ClusterSettings(method="agglomerative", cut=cut)) for cut in CUTS])


def _joined(collected: Collected, count: int, goals: Goals) -> None:
    """Units of one layer that respond to one token each, joined.

    Truth is which unit an example is of. Without strangers, all examples are at the tokens
    that their units respond to, so that each unit has one token.
    """
    pure = pure_units(collected)
    print(f"\nReal units of the demo's model, joined: {len(pure)} respond to one token in 95 % of their examples\n")
    _head(["joined", *METHODS])
    for size in SIZES:
        for rare in (False, True)[:size]:
            units = [join(collected, each, 100, rare, seed) for seed, each in enumerate(groups(pure, size, count))]
            _row(f"{size} joined" + (", one of them rare" if rare else ""), [*_by_method(units).values()])
    print("\nThe same by the input and by the text\n")
    _head(["joined", *(f"input: {method}" for method in METHODS), "text: average linkage"])
    for size in SIZES:
        units = [join(collected, each, 100, False, seed) for seed, each in enumerate(groups(pure, size, count))]
        _row(f"{size} joined", [*_by_method(units, alone=True).values(), [score(u.truth, _by_text(u)) for u in units]])
    print("\nBy layer, without strangers\n")
    _head(["joined", *METHODS, f"goals of {JUDGED}"])
    every: dict[str, list[Score]] = {method: [] for method in METHODS}
    for layer in collected.layers:
        own = [member for member in pure if member[0].layer == layer.layer]
        for size in SIZES:
            made = enumerate(groups(own, size, count))
            scores = _by_method([join(collected, each, 100, False, seed, strangers=False) for seed, each in made])
            if scores[JUDGED]:
                _row(f"layer {layer.layer}, {size} joined", [*scores.values()], "")
            every = {method: every[method] + scores[method] for method in METHODS}
    told = goals.ask_scores("joined, without strangers", every[JUDGED], 0.94, 0.87)
    _row("all", [*every.values()], told)


def _linked(collected: Collected, count: int, goals: Goals) -> None:
    """Pairs of examples of one real unit that are known to belong together, and those known not to.

    Units of the demo as they are, with their positive examples. *Must link*: the key tokens
    of both are the same token, which is known to be one behaviour in the first layers only,
    where units respond to tokens. *Cannot link*: their key tokens are different, and the
    cosine of the model's embeddings of these is at most the median over pairs of random
    tokens of the corpus. Numbers are means over units that have such pairs.
    """
    embeddings = load_file(str(MODELS["demo"] / "model.safetensors"))["transformer.wte.weight"]
    print("\nPairs of examples of real units: kept together where they must be, kept apart where they must\n")
    _head(["pairs", *METHODS, f"goals of {JUDGED}"])
    for layer in collected.layers:
        units = real_units(collected, layer, 3 * count)
        likeness = TokenLikeness.of(embeddings, layer.background_tokens)
        found: dict[str, list[Kept]] = {
            method: [kept(real.tokens, real.unit.labels(settings), likeness) for real in units]
            for method, settings in METHODS.items()
        }
        shares = {
            "must link": {method: [k.together for k in each] for method, each in found.items()},
            "cannot link": {method: [k.apart for k in each] for method, each in found.items()},
        }
        for kind, by_method in shares.items():
            if kind == "must link" and layer.layer > 1:
                continue
            name, asked = f"layer {layer.layer}, {kind}", {"must link": 0.99, "cannot link": 0.94}[kind]
            told = goals.ask(name, kept=(float(np.nanmean(by_method[JUDGED])), asked)) if layer.layer == 1 else ""
            cells = [f"{np.nanmean(each):.1%}" for each in by_method.values()]
            counted = np.count_nonzero(np.isfinite(by_method[JUDGED]))
            print(f"| {name} ({counted} units) | {' | '.join(cells)} | {told} |", flush=True)


def _scores(units: Iterable[Planted], settings: ClusterSettings, alone: bool = False) -> list[Score]:
    return [score(unit.truth, unit.labels(settings, alone)) for unit in units]


def _by_method(units: Sequence[Planted], alone: bool = False) -> dict[str, list[Score]]:
    return {method: _scores(units, settings, alone) for method, settings in METHODS.items()}


def _by_text(unit: Joined) -> Labels:
    """By TF-IDF of the words of the window."""
    found = TfidfVectorizer(token_pattern=r"\S+").fit_transform(unit.texts)
    return cluster(cosine_distances(np.asarray(found.toarray(), np.float32)), METHODS["average linkage"])


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _number(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "ARI" else f"{value:.1%}"


def _head(columns: Sequence[str]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))


def _row(name: str, cells: Sequence[Sequence[Score]], told: str | None = None) -> None:
    def cell(scores: Sequence[Score]) -> str:
        found = f"{_mean(s.agreement for s in scores):.2f}, {_mean(s.right_number for s in scores):.0%}"
        return found + (f", rare {_mean(s.rare_found for s in scores):.0%}" if "rare" in name else "")

    print("| " + " | ".join([name, *map(cell, cells), *([] if told is None else [told])]) + " |", flush=True)


def _panel(axis: str, plants: list[tuple[float, Plant]], count: int) -> Panel:
    drawn: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
    for at, what in plants:
        for method, scores in _by_method([plant(what, seed) for seed in range(count)]).items():
            drawn[method].append((at, _mean(s.agreement for s in scores)))
    return Panel(axis, drawn)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figure", nargs="?", help="SVG to write")
    parser.add_argument("--collect", nargs=2, help="folders of collect stages of the demo, instead of collecting now")
    parser.add_argument("--units", type=int, default=40, help="units a row")
    main(**vars(parser.parse_args()))
