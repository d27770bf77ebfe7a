"""Clusterings compared with known behaviours: `python -m tests.benchmarks.planted [FIGURE.svg]`.

Prints the tables of the prose: units planted in plain arrays, and units of the demo's
model that join several real ones. Takes some minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from atlas_builder.cluster.clustering import cluster
from atlas_builder.cluster.embeddings import cosine_distances, neuron_embeddings
from atlas_builder.collect.results import Collected
from atlas_builder.config import ClusterSettings
from atlas_builder.config_file import validate
from atlas_builder.pipeline.build import build
from atlas_builder.workspace import work_folder
from tests.benchmarks.lines import Panel, lines
from tests.support.planted import Joined, Plant, Planted, Score, groups, join, plant, pure_units, score

Unit = TypeVar("Unit", bound=Planted)

UNITS = 40
METHODS = {
    "average linkage": ClusterSettings(),
    "HDBSCAN": ClusterSettings(method="hdbscan"),
    "components": ClusterSettings(method="components"),
}
PLANTS = {
    **{f"{count} behaviour{'s' * (count > 1)}": Plant(count) for count in (1, 2, 3, 5, 8)},
    **{f"3, noise {noise}": Plant(3, noise=noise) for noise in (0.3, 0.8, 1.0)},
    **{f"1, noise {noise}": Plant(1, noise=noise) for noise in (0.8, 1.0)},
    **{f"3, overlap {overlap}": Plant(3, overlap=overlap) for overlap in (0.25, 0.5)},
    **{f"{count}, one of them rare": Plant(count, rare=True) for count in (2, 5)},
    **{f"3, background {share:.0%}": Plant(3, background=share) for share in (0.1, 0.3)},
    **{f"3, {count} examples": Plant(3, count) for count in (20, 50, 500)},
}
CUTS = (0.5, 0.55, 0.6)
HARD = ("3, noise 1.0", "1, noise 1.0", "3, overlap 0.5", "3, background 30%")
PANELS = {
    "noise": [(noise, Plant(3, noise=noise)) for noise in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)],
    "overlap": [(overlap, Plant(3, overlap=overlap)) for overlap in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)],
    "background": [(share, Plant(3, background=share)) for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)],
}


def embedding(unit: Planted) -> NDArray[np.float32]:
    """What the method looks at."""
    return neuron_embeddings(unit.inputs, unit.read)


def text(unit: Joined) -> NDArray[np.float32]:
    """TF-IDF of the words of the window."""
    found = TfidfVectorizer(token_pattern=r"\S+").fit_transform(unit.texts)
    return np.asarray(found.toarray(), np.float32)


def main(figure: str | None = None) -> None:
    """Print both tables; write the figure where asked."""
    print("Planted in plain arrays: adjusted Rand index, and units with the right number of behaviours\n")
    views: dict[str, Callable[[Planted], NDArray[np.float32]]] = {"": embedding, "input: ": lambda unit: unit.inputs}
    _head([f"{view}{method}" for view in views for method in METHODS])
    for name, what in PLANTS.items():
        units = [plant(what, seed) for seed in range(UNITS)]
        _row(name, [_scores(units, view, method) for view in views.values() for method in METHODS.values()])
    print("\nAverage linkage by its cut\n")
    _head([f"{cut:g}" for cut in CUTS])
    for name in HARD:
        units = [plant(PLANTS[name], seed) for seed in range(UNITS)]
        _row(name, [_scores(units, embedding, ClusterSettings(cut=cut)) for cut in CUTS])
    print("\nReal units of the demo's model, joined\n")
    with TemporaryDirectory() as scratch:
        settings = validate({"model": {"name": "demo"}, "corpus": {"source": "stdlib", "max_tokens": 1_000_000}})
        build(settings, Path(scratch) / "site", until="collect")
        _joined(Collected(work_folder(Path(scratch) / "site") / "collect"))
    if figure:
        Path(figure).write_text(lines([_panel(axis, plants) for axis, plants in PANELS.items()]), encoding="utf-8")


def _joined(collected: Collected) -> None:
    pure = pure_units(collected)
    print(f"{len(pure)} units respond to one token in 95 % of their examples\n")
    single = [join(collected, members, 100, False, seed) for seed, members in enumerate(groups(pure, 1, UNITS))]
    _head([f"average linkage, {cut:g}" for cut in CUTS])
    _row("1 joined", [_scores(single, embedding, ClusterSettings(cut=cut)) for cut in CUTS])
    print()
    views: dict[str, Callable[[Joined], NDArray[np.float32]]] = {
        "": embedding,
        "input: ": lambda unit: unit.inputs,
        "text: ": text,
    }
    _head([f"{view}{method}" for view in views for method in METHODS])
    for size in (1, 2, 3, 5):
        for rare in (False, True)[:size]:
            units = [
                join(collected, members, 100, rare, seed) for seed, members in enumerate(groups(pure, size, UNITS))
            ]
            name = f"{size} joined" + (", one of them rare" if rare else "")
            _row(name, [_scores(units, view, method) for view in views.values() for method in METHODS.values()])


def _scores(units: Iterable[Unit], view: Callable[[Unit], NDArray[np.float32]], method: ClusterSettings) -> list[Score]:
    return [score(unit.truth, cluster(cosine_distances(view(unit)), method)) for unit in units]


def _head(columns: list[str]) -> None:
    print("| planted | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))


def _row(name: str, cells: list[list[Score]]) -> None:
    def cell(scores: list[Score]) -> str:
        found = f"{np.mean([s.agreement for s in scores]):.2f}, {np.mean([s.right_number for s in scores]):.0%}"
        return found + (f", rare {np.mean([s.rare_found for s in scores]):.0%}" if "rare" in name else "")

    print(f"| {name} | " + " | ".join(map(cell, cells)) + " |", flush=True)


def _panel(axis: str, plants: list[tuple[float, Plant]]) -> Panel:
    drawn = {
        name: [
            (at, float(np.mean([s.agreement for s in _scores([plant(what, n) for n in range(UNITS)], view, method)])))
            for at, what in plants
        ]
        for name, view, method in (
            *((name, embedding, method) for name, method in METHODS.items()),
            ("average linkage, input alone", lambda unit: unit.inputs, METHODS["average linkage"]),
        )
    }
    return Panel(axis, drawn)


if __name__ == "__main__":
    main(*sys.argv[1:2])
