"""The map of all behaviours: its data for the script, the words written on it, its picture without scripts.

Behaviours are numbered through the atlas by layer, unit and number, as in `Links.address`.
"""

from __future__ import annotations

import base64
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from markupsafe import Markup, escape
from numpy.typing import NDArray

from atlas_builder.corpus import token_text
from atlas_builder.progress import gc_paused
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.stages import Stages
from atlas_builder.rounding import significant_all
from atlas_builder.site.names import token_names
from atlas_builder.site.search.index import BLOCK

RAMP = 7
"""Colours from the first layer to the last, `m0` … `m6` in the style sheet."""
_NOWHERE = 65_535
STEPS = _NOWHERE - 1  # to which a place is rounded, a 65,534th of the map's width

_LEVELS = 6
_CELLS = 5  # across the map at the first level; twice as many at each after it
_WORDS_A_LEVEL = 500
_FEWEST = 4  # behaviours that make a word worth writing
_SHARE_OF_A_CELL = 0.08
_SHARE_OF_A_WORD = 0.2  # of a behaviour's examples

_REGIONS = 60  # described in words
_NEAREST = 6  # behaviours listed of each

_COLUMNS = 84  # of dots in the picture
_SIZES = 5
_WIDTH = 840


class Word(NamedTuple):
    """A word that many behaviours of a region share: where it stands, and how far one must zoom in to see it."""

    x: float
    y: float
    level: int
    word: str


class NearbyBehaviour(NamedTuple):
    """A behaviour near a word, as a page names it."""

    page: str
    """Its address."""
    name: str
    label: str


class Region(NamedTuple):
    """A word of the map with the behaviours around it, for those who do not see the map."""

    word: Word
    near: list[NearbyBehaviour]
    """The nearest first; those as near by layer, unit and number."""


@dataclass(frozen=True)
class Map:
    """What is drawn: n behaviours of the units of all layers, in order."""

    layers: Sequence[tuple[int, int]]
    """Layers, and how many units each has."""
    counts: NDArray[np.int64]
    """Behaviours of each unit: (units,)."""
    effective: NDArray[np.float64]
    """Each unit's effective number of behaviours: (units,)."""
    places: NDArray[np.float32]
    """Where behaviours lie in the unit square, NaN for one that has no place: (n, 2)."""
    key_words: Sequence[Sequence[str]]
    """The words that each behaviour activates on: (n,)."""
    labels: Sequence[str] = ()
    """The label of each behaviour: (n,)."""
    tokens: Sequence[str] | None = None
    """The names of output neurons: (units,)."""

    @cached_property
    def layer(self) -> NDArray[np.int64]:
        """The place of each behaviour's layer among the layers: (n,)."""
        of_unit = np.repeat(np.arange(len(self.layers)), [units for _, units in self.layers])
        return np.repeat(of_unit, self.counts)

    @property
    def placed(self) -> int:
        """How many behaviours have a place."""
        return int(np.count_nonzero(~np.isnan(self.places[:, 0])))

    @cached_property
    def words(self) -> list[Word]:
        """The words written on the map, the most characteristic of each level first.

        The plane is cut into squares, finer from level to level. Of a square's words the
        one is taken for which c · ln((c / n) / (C / N)) is largest: c of its n behaviours
        activate on it, and C of all N. A word stands once in a neighbourhood.
        """
        placed = np.flatnonzero(~np.isnan(self.places[:, 0])).tolist()
        overall = Counter(word for number in placed for word in self.key_words[number])
        found: list[Word] = []
        standing = defaultdict[str, list[tuple[float, float]]](list)
        for level in range(_LEVELS):
            across = _CELLS << level
            for word, x, y in self._candidates(placed, overall, across)[:_WORDS_A_LEVEL]:
                if all(math.dist((x, y), other) > 2 / across for other in standing[word]):
                    found.append(Word(x, y, level, word))
                    standing[word].append((x, y))
        return found

    @property
    def regions(self) -> list[Region]:
        """The first of the words, and the behaviours nearest to the place of each."""
        placed = np.flatnonzero(~np.isnan(self.places[:, 0]))
        at = self.places[placed].astype(np.float64)  # (placed, 2)
        found = []
        for word in self.words[:_REGIONS]:
            distance = ((at - (word.x, word.y)) ** 2).sum(axis=1)
            last = min(_NEAREST, len(placed)) - 1
            within = np.flatnonzero(distance <= np.partition(distance, last)[last])
            nearest = within[np.argsort(distance[within], kind="stable")][:_NEAREST]
            found.append(Region(word, [self._named(number) for number in placed[nearest].tolist()]))
        return found

    def _named(self, number: int) -> NearbyBehaviour:
        """A behaviour by its number in the atlas."""
        place = int(np.searchsorted(self._ends, number, side="right"))
        behaviour = number - int(self._ends[place] - self.counts[place]) + 1
        index = int(self.layer[number])
        layer, unit = self.layers[index][0], place - sum(units for _, units in self.layers[:index])
        address = UnitAddress(layer, unit)
        name = address.id if self.tokens is None else self.tokens[unit]
        return NearbyBehaviour(address.anchor(behaviour), f"{name}.b{behaviour}", self.labels[number])

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """How many behaviours there are up to the end of each unit: (units,)."""
        return np.cumsum(self.counts)

    @property
    def drawn(self) -> DrawnMap:
        """What pages show of it."""
        return DrawnMap(self.picture, self.placed, self.regions)

    def _candidates(
        self, placed: Sequence[int], overall: Mapping[str, int], across: int
    ) -> list[tuple[str, float, float]]:
        """The most characteristic word of each square, the best first, and where it stands."""
        squares = defaultdict[int, list[int]](list)
        column, row = np.minimum((np.nan_to_num(self.places) * across).astype(int), across - 1).T.tolist()
        for number in placed:
            squares[row[number] * across + column[number]].append(number)
        found = []
        for _, own in sorted(squares.items()):
            counts = Counter(word for number in own for word in self.key_words[number])
            scored = [
                (count * math.log(count / len(own) * len(placed) / overall[word]), word)
                for word, count in counts.items()
                if count >= max(_FEWEST, _SHARE_OF_A_CELL * len(own))
            ]
            if scored:
                score, word = max(scored)
                bearers = self.places[[number for number in own if word in self.key_words[number]]]
                # At one of them: between two crowds there may be nothing.
                middle = ((bearers - np.median(bearers, axis=0)) ** 2).sum(axis=1).argmin()
                found.append((-score, word, *bearers[middle].tolist()))
        return [(word, x, y) for _, word, x, y in sorted(found)]

    @cached_property
    def picture(self) -> Markup:
        """The map as dots on a grid: the more behaviours, the larger; coloured by their most frequent layer.

        Empty where no behaviour has a place.
        """
        places = self.places[~np.isnan(self.places[:, 0])].astype(np.float64)
        if not len(places):
            return Markup("")
        step = _WIDTH / _COLUMNS
        low, high = places[:, 1].min(), places[:, 1].max()
        height = math.ceil((high - low) * (_WIDTH - 2 * step) + 2 * step)
        at = np.column_stack([places[:, 0], places[:, 1] - low]) * (_WIDTH - 2 * step) + step
        dots = _dots(at, self.layer[~np.isnan(self.places[:, 0])], step, len(self.layers))
        paths = [f'<path class="m{colour} d{size}" d="{_steps(own)}"/>' for (colour, size), own in sorted(dots.items())]
        said = f"Map of {len(places):,} behaviours, in colours by layer; similar ones are near each other."
        written = "".join(self._written(height, low, step))
        return Markup(
            f'<svg class="sky" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{said}">'
            f"{''.join(paths)}{written}</svg>"
        )

    def _written(self, height: int, low: float, step: float) -> Iterator[str]:
        """The words of the picture that have room, those of `w0` on a phone too."""
        taken: list[tuple[float, float, float]] = []
        for x, y, level, word in self.words:
            shown = token_text.plain(word)
            left, top = x * (_WIDTH - 2 * step) + step, (y - low) * (_WIDTH - 2 * step) + step - 12
            half = 4.5 * len(shown) + 8
            free = all(abs(left - other) > half + wide or abs(top - down) > 24 for other, down, wide in taken)
            if level < 2 and free and half < left < _WIDTH - half and 16 < top < height - 10:
                large = level == 0 and all(
                    abs(left - other) > 2 * (half + wide) or abs(top - down) > 56 for other, down, wide in taken
                )
                taken.append((left, top, half))
                yield f'<text class="w{0 if large else 1}" x="{left:.0f}" y="{top:.0f}">{escape(shown)}</text>'


def atlas_map(stages: Stages) -> Map:
    """The map of an atlas."""
    clustered = [layer.clustered for layer in stages.layers]
    labels: list[str] = []
    key_words: list[list[str]] = []
    with gc_paused():
        for layer in stages.one_by_one():
            labels += layer.described.labels()
            key_words += layer.described.key_words(_SHARE_OF_A_WORD)
    effective = np.concatenate([own.measures["effective_behaviours"][:, 0] for own in clustered])
    return Map(
        layers=[(layer.number, layer.collected.units) for layer in stages.layers],
        counts=np.concatenate([np.diff(own.starts) for own in clustered]),
        effective=np.nan_to_num(significant_all(effective)),
        places=stages.links.map,
        key_words=key_words,
        labels=labels,
        tokens=None if stages.output_tokens is None else token_names(stages.output_tokens),
    )


class DrawnMap(NamedTuple):
    """What pages show of a map."""

    picture: Markup
    placed: int
    regions: list[Region]


def publish_map(stages: Stages, folder: Path) -> DrawnMap:
    """Write an atlas's map; return what pages show of it."""
    with gc_paused():
        drawn = atlas_map(stages)
        write_map(folder, drawn)
        return drawn.drawn


def preview(picture: Markup) -> Markup:
    """The picture as a link to the map, for the first page; empty where there is none."""
    return picture and Markup('<a class="to-map" href="map.html">{}</a>').format(picture)


def write_map(folder: Path, drawn: Map) -> None:
    """Write `points.js`: numbers as base64 of 16-bit integers, little-endian.

    `places` are x and y of each behaviour in 65,534ths of the map's width, 65,535 where
    it has none; `counts` and `effective` (in hundredths) are of units. `block` gives the
    file of the search index that has a behaviour's label and example; `tokens` are names of output neurons.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "layers": drawn.layers,
        "counts": _packed(drawn.counts),
        "effective": _packed(np.rint(drawn.effective * 100)),
        "places": _packed(np.where(np.isnan(drawn.places), _NOWHERE, np.rint(np.nan_to_num(drawn.places) * STEPS))),
        "words": [[round(x, 4), round(y, 4), level, word] for x, y, level, word in drawn.words],
        "block": BLOCK,
        **({} if drawn.tokens is None else {"tokens": drawn.tokens}),
    }
    (folder / "points.js").write_bytes(b"Atlas.map(" + orjson.dumps(data) + b");\n")


def _packed(numbers: NDArray[np.float64] | NDArray[np.int64]) -> str:
    return base64.b64encode(np.minimum(numbers, _NOWHERE).astype("<u2").tobytes()).decode()


def _dots(
    at: NDArray[np.float64], layer: NDArray[np.int64], step: float, layers: int
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Points (n, 2) gathered on a grid whose every other row is set off: places of dots by colour and size."""
    rise = step * math.sqrt(3) / 2
    rows = np.stack([np.floor(at[:, 1] / rise), np.floor(at[:, 1] / rise) + 1]).astype(int)  # (2, n): above, below
    columns = np.rint(at[:, 0] / step - rows % 2 / 2).astype(int)
    x, y = (columns + rows % 2 / 2) * step, rows * rise
    nearer = ((x - at[:, 0]) ** 2 + (y - at[:, 1]) ** 2).argmin(axis=0)
    every = np.arange(len(at))
    spots, of = np.unique(np.stack([x[nearer, every], y[nearer, every]], axis=1), axis=0, return_inverse=True)
    held = np.zeros((len(spots), layers), dtype=int)
    np.add.at(held, (of.reshape(-1), layer), 1)
    counts = held.sum(axis=1)
    # The area of a dot goes by its behaviours, up to where one dot in twenty is full.
    full = max(np.quantile(counts, 0.95), 1)
    sizes = np.minimum(np.ceil(np.sqrt(counts / full) * _SIZES), _SIZES).astype(int) - 1
    colours = np.rint(held.argmax(axis=1) / max(layers - 1, 1) * (RAMP - 1)).astype(int)
    dots = defaultdict[tuple[int, int], list[tuple[int, int]]](list)
    for colour, size, (left, top) in zip(colours.tolist(), sizes.tolist(), np.rint(spots).tolist(), strict=True):
        dots[colour, size].append((int(left), int(top)))
    return dots


def _steps(places: Sequence[tuple[int, int]]) -> str:
    """A path of dots: lines of no length with round ends, each relative to the last."""
    path, (x, y) = "", (0, 0)
    for to_x, to_y in sorted(places):
        path += f"m{to_x - x} {to_y - y}h0"
        x, y = to_x, to_y
    return path
