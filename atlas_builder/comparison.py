"""Atlases of the same text side by side: their scores by layer, and behaviours that they share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray
from scipy.sparse import csr_array

from atlas_builder import reader
from atlas_builder.errors import ConfigurationError, NoAtlasError, SiteError
from atlas_builder.explain.results import Explained, beside, of_atlas, scores_of
from atlas_builder.explain.results import read_explanations as explained
from atlas_builder.records.kinds import kind_of
from atlas_builder.records.measures import shown_in
from atlas_builder.site import figures
from atlas_builder.site.pages import COLOURS
from atlas_builder.site.render import write_text
from atlas_builder.site.theme import environment, find_theme

SHARED = 0.2
"""Jaccard index of two behaviours' examples from which they match."""
_LISTED = 12
_CONFIDENT = 1.96  # standard errors on each side of a mean that hold 95 of 100


class Score(NamedTuple):
    """What is compared: a column of the units' tables, or of what `explain` wrote; `why` says what it is."""

    column: str
    name: str
    why: str


EXPLAINED = (
    Score("top_and_random", "Explained, top and random", "r of simulated and true activation, on the top and anywhere"),
    Score("random_only", "Explained, random only", "the same on random text only"),
    Score("whole_range", "Explained, whole range", "rank correlation, on text from every part of the range"),
)
"""What `explain` wrote beside the atlases."""

SCORES = tuple(Score(measure.name, measure.title, measure.description) for measure in shown_in("comparison"))


class Mean(NamedTuple):
    """A mean over so many units, and its 95 % interval."""

    value: float
    low: float
    high: float
    units: int


class Match(NamedTuple):
    """Two behaviours that share examples: their rows in the tables of two atlases, and the share."""

    row: int
    other: int
    share: float


@dataclass(frozen=True)
class Compared:
    """One of the atlases; `place` is its address from the comparison."""

    atlas: reader.Atlas
    name: str
    place: str

    explained: list[Explained]
    """What another model said of some of its units."""

    @cached_property
    def units(self) -> pa.Table:
        """Its units that have examples, on which every score rests."""
        table = self.atlas.units
        return table.filter(pa.compute.greater(table["examples"], 0))

    @property
    def noun(self) -> str:
        """What one of its units is called."""
        return kind_of(self.atlas.facts["kind"]).noun

    @property
    def loss(self) -> float | None:
        """Its model's, in nats a token of the text; None where it was not measured."""
        known = self.atlas.facts["model"].get("loss")
        return None if known is None else float(known["nats"])

    @property
    def layers(self) -> list[int]:
        """The layers that have such units."""
        found: list[int] = sorted(set(self.units["layer"].to_pylist()))
        return found

    def values(self, measure: Score, layer: int | None = None) -> NDArray[np.float64]:
        """A measure of its units, or of one layer's, where it is known."""
        if measure in EXPLAINED:
            return np.array(scores_of(self.explained, measure.column, layer), np.float64)
        units = self.units if layer is None else self.units.filter(pa.compute.equal(self.units["layer"], layer))
        found = units[measure.column].to_numpy(zero_copy_only=False).astype(np.float64)
        known: NDArray[np.float64] = found[~np.isnan(found)]
        return known

    @cached_property
    def examples(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each example in a behaviour, the behaviour's row in its table, and the token of the corpus it is."""
        table, examples = self.atlas.behaviours, self.atlas.examples
        known = examples.filter(pa.compute.is_valid(examples["behaviour"]))
        rows = {key: row for row, key in enumerate(zip(*(table[name].to_pylist() for name in _KEY), strict=True))}
        row = [rows[key] for key in zip(*(known[name].to_pylist() for name in _KEY), strict=True)]
        document = known["document"].to_numpy().astype(np.int64)
        return np.array(row, np.int64), document << 32 | known["position"].to_numpy()


_KEY = ("layer", "unit", "behaviour")


def compare(sites: Sequence[Path], output: Path, *, note: str = "", theme: str = "atlas") -> Path:
    """Write a page that compares built atlases, and what it is styled with, into a folder; gives the page.

    `note` says at its head what a reader must know of these atlases.

    Raises `ConfigurationError` where there are not two atlases, where one is none, or where
    they were not made from the same text.
    """
    if len(sites) < 2:
        raise ConfigurationError("compare: name two atlases at least, the folders that build wrote.")
    compared = [_open(site, output) for site in sites]
    first = compared[0].atlas.facts["corpus"]
    for place, other in zip(sites[1:], compared[1:], strict=True):
        text = other.atlas.facts["corpus"]
        if (text["sha256"], text["tokens"]) != (first["sha256"], first["tokens"]):
            raise ConfigurationError(
                f"compare: {sites[0]} and {place} were made from different texts, so their numbers say nothing about "
                "each other: build both with the same corpus and tokenizer."
            )
    models = sorted({said.model for one in compared for said in one.explained})
    if len(models) > 1:
        raise ConfigurationError(
            f"compare: units were explained by {' and '.join(models)}: have one model explain all."
        )
    if (output / "atlas.json").exists():
        raise ConfigurationError(
            f"--output: {output} is an atlas, whose first page would be lost: name another folder."
        )
    output.mkdir(parents=True, exist_ok=True)
    folder = find_theme(theme)
    shutil.copytree(folder / "assets", output / "assets", dirs_exist_ok=True)
    page = output / "index.html"
    write_text(page, environment(folder).get_template("compare.html").render(**_shown(compared), note=note))
    return page


def mean(values: NDArray[np.float64]) -> Mean | None:
    """The mean of values and its 95 % interval, mean ± 1.96 s / √n; None where there are not two."""
    if len(values) < 2:
        return None
    middle, error = float(values.mean()), _CONFIDENT * float(values.std(ddof=1)) / len(values) ** 0.5
    return Mean(middle, middle - error, middle + error, len(values))


def differences(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Settings that scores rest on and that differ between configurations: their names, and what each has."""
    found = []
    for section, names in _RESTS_ON.items():
        for name in names or settings[0][section]:
            values = [own[section].get(name) for own in settings]
            if any(value != values[0] for value in values):
                found.append((f"{section}.{name}", values))
    return found


_RESTS_ON: dict[str, tuple[str, ...]] = {
    "corpus": ("context",),
    "examples": (),
    "clusters": (),
    "describe": ("importance",),
}
"""Sections of a configuration, and those of their settings, or all, that scores rest on."""


def together(one: Compared, other: Compared) -> tuple[csr_array, csr_array]:
    """Which tokens are examples of each behaviour of two atlases, ones and zeros: (behaviours, tokens) each."""
    tokens, column = np.unique(np.concatenate([one.examples[1], other.examples[1]]), return_inverse=True)
    first, second = np.split(column.reshape(-1), [len(one.examples[1])])
    return _held(one, first, len(tokens)), _held(other, second, len(tokens))


def _held(of: Compared, column: NDArray[np.int64], tokens: int) -> csr_array:
    ones = np.ones(len(column), np.int64)
    return csr_array((ones, (of.examples[0], column)), shape=(len(of.atlas.behaviours), tokens))


def matches(one: csr_array, other: csr_array) -> list[Match]:
    """Behaviours whose examples are the same to a share of `SHARED` at least, each other's best, the best first.

    The share is Jaccard's: examples of both over examples of either.
    """
    both = (one @ other.T).tocoo()
    sizes = np.asarray(one.sum(axis=1)).ravel(), np.asarray(other.sum(axis=1)).ravel()
    share = both.data / (sizes[0][both.row] + sizes[1][both.col] - both.data)
    best = np.zeros(len(sizes[0])), np.zeros(len(sizes[1]))
    np.maximum.at(best[0], both.row, share)
    np.maximum.at(best[1], both.col, share)
    kept = (share >= SHARED) & (share == best[0][both.row]) & (share == best[1][both.col])
    found = [
        Match(*entry)
        for entry in zip(both.row[kept].tolist(), both.col[kept].tolist(), share[kept].tolist(), strict=True)
    ]
    return sorted(found, key=lambda match: (-match.share, match.row, match.other))


def _open(site: Path, output: Path) -> Compared:
    try:
        atlas = reader.open(site)
        _ = atlas.units, atlas.behaviours, atlas.examples
    except SiteError as error:
        raise NoAtlasError(f"compare: {error}") from None
    place = quote(Path(os.path.relpath(site.resolve(), output.resolve())).as_posix())
    return Compared(atlas, atlas.title, place, of_atlas(site, explained(beside(site))))


def _shown(compared: Sequence[Compared]) -> dict[str, Any]:
    """What the page says."""
    pairs = {
        (first, second): _pair(compared[first], compared[second], (first, second))
        for first, second in combinations(range(len(compared)), 2)
    }
    known = [measure for measure in (*SCORES, *EXPLAINED) if any(len(one.values(measure)) for one in compared)]
    return {
        "compared": compared,
        "corpus": compared[0].atlas.facts["corpus"],
        "measures": [
            (measure, [mean(one.values(measure)) for one in compared], _figure(measure, compared)) for measure in known
        ],
        "differences": differences([one.atlas.facts["configuration"] for one in compared]),
        "explainer": next((said.model for one in compared for said in one.explained), None),
        "pairs": pairs,
        "least": SHARED,
    }


def _figure(measure: Score, compared: Sequence[Compared]) -> Any:
    """A layer of all atlases together, each atlas in its colour."""
    rows: list[figures.Row] = []
    for layer in sorted({layer for one in compared for layer in one.layers}):
        for place, one in enumerate(compared):
            if layer in one.layers:
                apart = bool(rows) and rows[-1].link.rsplit("/", 2)[1] != f"L{layer}"
                link, values = f"{one.place}/L{layer}/index.html", one.values(measure, layer).tolist()
                rows.append(figures.Row(f"{one.name}, layer {layer}", link, values, place % COLOURS + 1, apart))
    return figures.boxes(rows, measure.name)


def _pair(one: Compared, other: Compared, place: tuple[int, int]) -> dict[str, Any]:
    """What two atlases share, and what only one of them has."""
    examples = together(one, other)
    found = matches(*examples)
    rows = [one.atlas.behaviours, other.atlas.behaviours]
    return {
        "one": one,
        "other": other,
        "matches": len(found),
        "place": f"match-{place[0]}-{place[1]}",
        "totals": [len(table) for table in rows],
        "listed": [
            (match.share, *(_behaviour(of, row) for of, row in ((one, match.row), (other, match.other))))
            for match in found[:_LISTED]
        ],
        "alone": [
            (of, [_behaviour(of, row) for row in _alone(own, against)[:_LISTED]])
            for of, own, against in ((one, *examples), (other, *examples[::-1]))
        ],
    }


def _alone(own: csr_array, against: csr_array) -> list[int]:
    """Behaviours none of whose examples is one of any behaviour of the other, those of most examples first."""
    taken = (np.asarray(against.sum(axis=0)).ravel() > 0).astype(np.int64)
    sizes = np.diff(own.indptr)
    free = np.flatnonzero((own @ taken == 0) & (sizes > 0))
    return sorted(free.tolist(), key=lambda row: (-int(sizes[row]), row))


def _behaviour(of: Compared, row: int) -> dict[str, Any]:
    """A behaviour as the page shows it."""
    entry = of.atlas.behaviours.slice(row, 1).to_pylist()[0]
    return {
        "name": f"L{entry['layer']}/N{entry['unit']}.b{entry['behaviour']}",
        "label": entry["label"],
        "size": entry["size"],
        "page": f"{of.place}/{entry['page']}",
    }
