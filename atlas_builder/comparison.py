"""A comparison of atlases of the same text: their scores by layer, and behaviours that they share."""

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
from atlas_builder.corpus.token_text import plain
from atlas_builder.errors import ConfigurationError, NoAtlasError, SiteError
from atlas_builder.explain.results import beside, of_atlas, of_whole_units, scores_of
from atlas_builder.explain.results import read_explanations as explained
from atlas_builder.records.explanations import Explanation
from atlas_builder.records.kinds import kind_of
from atlas_builder.records.measures import MEASURES, shown_in
from atlas_builder.site import figures
from atlas_builder.site.render import write_text
from atlas_builder.site.theme import environment, find_theme
from atlas_builder.site.unit_side import COLOURS

SHARED = 0.2
"""The least Jaccard index of two behaviours' examples for a match."""
_LISTED = 12
_CONFIDENT = 1.96  # standard errors on each side of a mean in a 95 % interval


class Score(NamedTuple):
    """A score to compare: a column of the units' tables, or of the results of `explain`; `why` describes it."""

    column: str
    name: str
    why: str


EXPLAINED = (
    Score("simulation", "Explained, top and random", "r of simulated and true activations, top and random text"),
    Score("random_only", "Explained, random only", "the same on random text only"),
    Score("whole_range", "Explained, whole range", "rank correlation on text from the whole activation range"),
    Score("detection", "Explained, detection", "balanced accuracy of telling activating text from other text"),
    Score("fuzzing", "Explained, fuzzing", "balanced accuracy of telling right marks of tokens from wrong ones"),
)
"""Scores that `explain` wrote beside the atlases."""

SCORES = tuple(Score(measure.name, measure.title, measure.description) for measure in shown_in("comparison"))
_STANDARD = "standard_behaviours"
_SEEN = next(
    Score(measure.name, measure.title, "in the examples read; it grows with their number")
    for measure in MEASURES
    if measure.name == "effective_behaviours"
)
"""Compared beside the number at equal coverage where an atlas has none."""


class Mean(NamedTuple):
    """A mean, its 95 % interval, and the number of units."""

    value: float
    low: float
    high: float
    units: int


class Match(NamedTuple):
    """Two behaviours that share examples: their rows in the tables of two atlases, and their Jaccard index."""

    row: int
    other: int
    share: float


@dataclass(frozen=True)
class Compared:
    """One of the atlases; `place` is its address from the comparison."""

    atlas: reader.Atlas
    name: str
    place: str

    explained: list[Explanation]
    """Explanations of some of its units."""

    @cached_property
    def units(self) -> pa.Table:
        """Its units that have examples, as every score requires."""
        table = self.atlas.units
        return table.filter(pa.compute.greater(table["examples"], 0))

    @property
    def noun(self) -> str:
        """What one of its units is called."""
        return kind_of(self.atlas.facts["kind"]).noun

    @property
    def loss(self) -> float | None:
        """Its model's loss in nats a token; None if not measured."""
        known = self.atlas.facts["model"].get("loss")
        return None if known is None else float(known["nats"])

    @property
    def loss_error(self) -> float | None:
        """The standard error of `loss`; None if it is not known, as in older atlases."""
        known = (self.atlas.facts["model"].get("loss") or {}).get("error")
        return None if known is None else float(known)

    @property
    def layers(self) -> list[int]:
        """The layers of its units that have examples."""
        layers: list[int] = sorted(set(self.units["layer"].to_pylist()))
        return layers

    def values(self, measure: Score, layer: int | None = None) -> NDArray[np.float64]:
        """The known values of a measure for all its units, or those of one layer."""
        if measure in EXPLAINED:
            return np.array(scores_of(self.explained, measure.column, layer), np.float64)
        units = self.units if layer is None else self.units.filter(pa.compute.equal(self.units["layer"], layer))
        if measure.column not in units.column_names:  # of an earlier version
            return np.zeros(0)
        column = units[measure.column].to_numpy(zero_copy_only=False).astype(np.float64)
        values: NDArray[np.float64] = column[~np.isnan(column)]
        return values

    @cached_property
    def examples(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each clustered example its behaviour's row in the table, and the id of its token in the corpus."""
        table, examples = self.atlas.behaviours, self.atlas.examples
        known = examples.filter(pa.compute.is_valid(examples["behaviour"]))
        rows = {key: row for row, key in enumerate(zip(*(table[name].to_pylist() for name in _KEY), strict=True))}
        row = [rows[key] for key in zip(*(known[name].to_pylist() for name in _KEY), strict=True)]
        document = known["document"].to_numpy().astype(np.int64)
        return np.array(row, np.int64), document << 32 | known["position"].to_numpy()


_KEY = ("layer", "unit", "behaviour")


def compare(sites: Sequence[Path], output: Path, *, note: str = "", theme: str = "atlas") -> Path:
    """Write a page that compares atlases of the same text.

    Args:
        sites: The folders of two or more built atlases.
        output: The folder of the page and its assets; the page links to the atlases where they are.
        note: What a reader must know of these atlases, shown at the head of the page.
        theme: The theme's name, or the path of its folder.

    Returns:
        The page.

    Raises:
        ConfigurationError: If there are fewer than two atlases, one of the folders holds none, or
            they are of different texts.

    Example:
        >>> import atlas_builder
        >>> from pathlib import Path
        >>> sites = [Path("output/my-model"), Path("output/another")]
        >>> atlas_builder.compare(sites, Path("output/compared")).name
        'index.html'
    """
    if len(sites) < 2:
        raise ConfigurationError("compare requires two atlases or more: name the folders that build wrote.")
    compared = [_open(site, output) for site in sites]
    first = compared[0].atlas.facts["corpus"]
    for place, other in zip(sites[1:], compared[1:], strict=True):
        text = other.atlas.facts["corpus"]
        if (text["sha256"], text["tokens"]) != (first["sha256"], first["tokens"]):
            raise ConfigurationError(
                f"compare: {sites[0]} and {place} were built from different texts, so their numbers are not "
                "comparable: build both with the same corpus and tokenizer."
            )
    models = sorted({explanation.model for one in compared for explanation in one.explained})
    if len(models) > 1:
        raise ConfigurationError(
            f"compare: units were explained by {' and '.join(models)}: explain all with one model."
        )
    if (output / "atlas.json").exists():
        raise ConfigurationError(
            f"--output: {output} is an atlas, whose first page would be overwritten: name another folder."
        )
    output.mkdir(parents=True, exist_ok=True)
    folder = find_theme(theme)
    shutil.copytree(folder / "assets", output / "assets", dirs_exist_ok=True)
    page = output / "index.html"
    write_text(page, environment(folder).get_template("compare.html").render(**_shown(compared), note=note))
    return page


def mean(values: NDArray[np.float64]) -> Mean | None:
    """The mean of values and its 95 % interval, mean ± 1.96 s / √n; None for fewer than two."""
    if len(values) < 2:
        return None
    middle, error = float(values.mean()), _CONFIDENT * float(values.std(ddof=1)) / len(values) ** 0.5
    return Mean(middle, middle - error, middle + error, len(values))


def differences(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Settings that scores depend on and that differ between configurations: their names, and the values of each."""
    differing = []
    for section, names in _RESTS_ON.items():
        for name in names or settings[0][section]:
            values = [configuration[section].get(name) for configuration in settings]
            if any(value != values[0] for value in values):
                differing.append((f"{section}.{name}", values))
    return differing


_RESTS_ON: dict[str, tuple[str, ...]] = {
    "corpus": ("context",),
    "examples": (),
    "clusters": (),
    "describe": ("importance",),
}
"""Sections of a configuration whose settings scores depend on: those named, or all."""


def together(one: Compared, other: Compared) -> tuple[csr_array, csr_array]:
    """Membership of tokens in the behaviours of two atlases, ones and zeros: (behaviours, tokens) each."""
    tokens, column = np.unique(np.concatenate([one.examples[1], other.examples[1]]), return_inverse=True)
    first, second = np.split(column.reshape(-1), [len(one.examples[1])])
    return _members(one, first, len(tokens)), _members(other, second, len(tokens))


def _members(of: Compared, column: NDArray[np.int64], tokens: int) -> csr_array:
    ones = np.ones(len(column), np.int64)
    return csr_array((ones, (of.examples[0], column)), shape=(len(of.atlas.behaviours), tokens))


def matches(one: csr_array, other: csr_array) -> list[Match]:
    """Mutually best pairs of behaviours with a Jaccard index of at least `SHARED`, the best first.

    The index is the number of examples of both over that of either.
    """
    shared = (one @ other.T).tocoo()
    sizes = np.asarray(one.sum(axis=1)).ravel(), np.asarray(other.sum(axis=1)).ravel()
    share = shared.data / (sizes[0][shared.row] + sizes[1][shared.col] - shared.data)
    best = np.zeros(len(sizes[0])), np.zeros(len(sizes[1]))
    np.maximum.at(best[0], shared.row, share)
    np.maximum.at(best[1], shared.col, share)
    kept = (share >= SHARED) & (share == best[0][shared.row]) & (share == best[1][shared.col])
    pairs = [
        Match(*entry)
        for entry in zip(shared.row[kept].tolist(), shared.col[kept].tolist(), share[kept].tolist(), strict=True)
    ]
    return sorted(pairs, key=lambda match: (-match.share, match.row, match.other))


def _open(site: Path, output: Path) -> Compared:
    try:
        atlas = reader.open(site)
        _ = atlas.units, atlas.behaviours, atlas.examples
    except SiteError as error:
        raise NoAtlasError(f"compare: {error}") from None
    place = quote(Path(os.path.relpath(site.resolve(), output.resolve())).as_posix())
    return Compared(atlas, plain(atlas.title), place, of_atlas(site, of_whole_units(explained(beside(site)))))


def _shown(compared: Sequence[Compared]) -> dict[str, Any]:
    """The variables of the page's template."""
    pairs = {
        (first, second): _pair(compared[first], compared[second], (first, second))
        for first, second in combinations(range(len(compared)), 2)
    }
    known = [
        measure for measure in (*_scores(compared), *EXPLAINED) if any(len(one.values(measure)) for one in compared)
    ]
    return {
        "compared": compared,
        "corpus": compared[0].atlas.facts["corpus"],
        "measures": [
            (measure, [mean(one.values(measure)) for one in compared], _figure(measure, compared)) for measure in known
        ],
        "differences": differences([one.atlas.facts["configuration"] for one in compared]),
        "explainer": next((explanation.model for one in compared for explanation in one.explained), None),
        "sentences": sentences(compared),
        "pairs": pairs,
        "least": SHARED,
    }


def sentences(compared: Sequence[Compared]) -> list[str]:
    """What the scores say of directions, whichever way: of how many things each does beside units of the same model."""
    number = next(score for score in _scores(compared)[::-1] if score.column in (_STANDARD, _SEEN.column))
    said = []
    for one in compared:
        if one.atlas.facts["kind"] != "basis":
            continue
        own = mean(one.values(number))
        for other in compared:
            theirs = mean(other.values(number))
            same_model = other.atlas.facts["model"]["name"] == one.atlas.facts["model"]["name"]
            if other is one or not same_model or own is None or theirs is None:
                continue
            if other.atlas.facts["kind"] == "basis" and compared.index(other) < compared.index(one):
                continue  # said already
            way = "fewer" if own.high < theirs.low else "more" if own.low > theirs.high else "as many"
            where = "equal sample coverage" if number.column == _STANDARD else "hand"
            than, within = ("as", ", within 95 % intervals") if way == "as many" else ("than", "")
            said.append(
                f"{one.name} have {way} behaviours at {where} {than} {other.name}: {own.value:.2f} and "
                f"{theirs.value:.2f} on average{within}."
            )
    said += _said_of_stability(compared)
    return said


def _said_of_stability(compared: Sequence[Compared]) -> list[str]:
    score = next(score for score in SCORES if score.column == "direction_stability")
    means = [(one, mean(one.values(score))) for one in compared]
    known = [f"{found.value:.2f} for {one.name}" for one, found in means if found is not None]
    if not known:
        return []
    return [
        f"How alike the directions of the text’s two halves are: {', '.join(known)}. A random rotation does not depend "
        "on the text, so that its stability says nothing for it."
    ]


def _scores(compared: Sequence[Compared]) -> list[Score]:
    """The scores of units, with the effective number of what was seen where an atlas has none at equal coverage."""
    standard = next(score for score in SCORES if score.column == _STANDARD)
    lacking = any(not len(one.values(standard)) for one in compared)
    return [one for score in SCORES for one in ((score, _SEEN) if lacking and score is standard else (score,))]


def _figure(measure: Score, compared: Sequence[Compared]) -> Any:
    """Box plots of a measure, layer by layer, each atlas in its colour."""
    rows: list[figures.Row] = []
    for layer in sorted({layer for one in compared for layer in one.layers}):
        for place, one in enumerate(compared):
            if layer in one.layers:
                apart = bool(rows) and rows[-1].link.rsplit("/", 2)[1] != f"L{layer}"
                link, values = f"{one.place}/L{layer}/index.html", one.values(measure, layer).tolist()
                rows.append(figures.Row(f"{one.name}, layer {layer}", link, values, place % COLOURS + 1, apart))
    return figures.boxes(rows, measure.name)


def _pair(one: Compared, other: Compared, place: tuple[int, int]) -> dict[str, Any]:
    """The behaviours that two atlases share, and those that only one of them has."""
    examples = together(one, other)
    pairs = matches(*examples)
    rows = [one.atlas.behaviours, other.atlas.behaviours]
    return {
        "one": one,
        "other": other,
        "matches": len(pairs),
        "place": f"match-{place[0]}-{place[1]}",
        "totals": [len(table) for table in rows],
        "listed": [
            (match.share, *(_behaviour(of, row) for of, row in ((one, match.row), (other, match.other))))
            for match in pairs[:_LISTED]
        ],
        "alone": [
            (of, [_behaviour(of, row) for row in _alone(first, second)[:_LISTED]])
            for of, first, second in ((one, *examples), (other, *examples[::-1]))
        ],
    }


def _alone(examples: csr_array, others: csr_array) -> list[int]:
    """Behaviours none of whose examples is in a behaviour of the other atlas, those with most examples first."""
    taken = (np.asarray(others.sum(axis=0)).ravel() > 0).astype(np.int64)
    sizes = np.diff(examples.indptr)
    free = np.flatnonzero((examples @ taken == 0) & (sizes > 0))
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
