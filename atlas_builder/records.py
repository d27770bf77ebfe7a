"""The record of a unit: all that is published of it, as plain data, made from what the stages left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.cluster import Clustered
from atlas_builder.collect.bins import coarse_histogram
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import Configuration
from atlas_builder.describe.run import Described
from atlas_builder.link import Links
from atlas_builder.numbers import grain_of, plain, significant, to_grain
from atlas_builder.schema import SCHEMA as SCHEMA
from atlas_builder.schema import SCHEMA_FILE as SCHEMA_FILE
from atlas_builder.schema import Record as Record
from atlas_builder.schema import content_hash as content_hash
from atlas_builder.schema import serialise as serialise
from atlas_builder.schema import unit_id as unit_id
from atlas_builder.shown import Shown
from atlas_builder.store import MARK, read_json

_IMPORTANCE_GRAIN = 0.01
_AROUND_A_BAND = (5, 2)  # tokens shown before and after a token drawn from a band, at most


@dataclass(frozen=True)
class Stages:
    """The folders of the stages that records are made from."""

    collect: Path
    cluster: Path
    describe: Path
    link: Path

    @property
    def fingerprint(self) -> str:
        """Of everything the folders were made from; the same folders may hold another build later."""
        return str(read_json(self.link / MARK)["fingerprint"])

    @cached_property
    def collected(self) -> Collected:
        """What the pass found."""
        return Collected(self.collect)

    @cached_property
    def links(self) -> Links:
        """Similar behaviours."""
        return Links(self.link)

    def __reduce__(self) -> tuple[Callable[..., Stages], tuple[Path, ...]]:
        """Workers get places on disk, not what happens to be open."""
        return Stages, (self.collect, self.cluster, self.describe, self.link)


class LayerRecords:
    """Makes the records of one layer."""

    def __init__(self, stages: Stages, layer: CollectedLayer, config: Configuration) -> None:
        self.stages, self.layer, self.config = stages, layer, config
        self.clustered = Clustered(layer.layer, stages.cluster)
        self.described = Described(layer.layer, stages.describe)
        self._first_behaviour = stages.links.first_of(layer.layer)
        self._texts = stages.collected.token_texts
        self._contexts = stages.collected.contexts
        self._tokens = np.asarray(self._contexts.tokens)
        self._shown = Shown(layer, self.clustered, self._contexts, config.site)

    def record(self, unit: int) -> Record:
        """The record of a unit."""
        layer, atlas = self.layer, self.config.atlas
        labels = self.clustered.labels[layer.starts[unit] : layer.starts[unit + 1]]
        shown = self._shown.of(unit)
        place = {int(example): index for index, example in enumerate(shown)}
        lowest, highest = float(layer.moments.minimum[unit]), float(layer.moments.maximum[unit])
        grain = grain_of(highest)
        # Below zero the scale is that of the minimum.
        grains = {1: grain, -1: grain_of(-lowest)}
        bands = self._bands(unit, first=len(shown))
        record: Record = {
            "schema": SCHEMA,
            "id": unit_id(atlas.id, layer.layer, unit),
            "atlas": {"id": atlas.id, "version": atlas.version},
            "layer": layer.layer,
            "unit": unit,
            "kind": self.stages.collected.facts["kind"],
            "stats": self._stats(unit),
            "polysemanticity": self._measures(unit, side=0),
            "negative": {"polysemanticity": self._measures(unit, side=1)} if layer.sides == 2 else None,
            "behaviours": self._behaviours(unit, labels, place),
            "bands": bands,
            "middle_differs": bool(self._middle_differs[unit]),
            "examples": [*self._examples(unit, shown, labels[shown], grains), *self._band_examples(unit, grain)],
            "logits": self._logits(unit),
        }
        record["hash"] = content_hash(record)
        return record

    def plane(self, unit: int, sign: int) -> tuple[NDArray[np.float32], NDArray[np.int32], float]:
        """Where the examples of one side of a unit lie in its plane, their behaviours from 1, and how much it holds.

        (examples, 2) and (examples,), 0 for none; the share is as in `embeddings.Plane`.
        """
        first, examples = self.layer.of_side(unit, sign)
        own = slice(first, first + len(examples))
        side = 0 if sign > 0 else 1
        return self.clustered.points[own], self.clustered.labels[own] + 1, float(self.clustered.spread[unit, side])

    def _stats(self, unit: int) -> Record:
        maximum, minimum, mean, deviation, density = (float(part[unit]) for part in self.layer.moments)
        edges, counts = coarse_histogram(self.layer.histogram[unit].astype(np.int64))
        return {
            "max": significant(maximum),
            "min": significant(minimum),
            "mean": significant(mean),
            "std": significant(deviation),
            "density": significant(density),
            "tokens": self.layer.tokens,
            "histogram": {"edges": [significant(edge) for edge in edges], "counts": counts},
        }

    def _measures(self, unit: int, side: int) -> Record:
        row = self.clustered.measures[unit, side]
        return {
            name: int(row[name]) if row.dtype[name].kind == "i" else significant(float(row[name]))
            for name in row.dtype.names
        }

    def _bands(self, unit: int, first: int) -> list[Record]:
        """The bands of a unit; the tokens that stand for them come after `first` other examples."""
        edges = self.layer.band_edges[unit]
        if np.isnan(edges[0]):
            return []
        (found, _), quantiles = self._shown_of_bands(unit), self.config.examples.bands
        drawn, share, chance = (part[unit] for part in self.described.bands)
        return [
            {
                "quantiles": [quantiles[band], quantiles[band + 1]],
                "range": [significant(float(edges[band])), significant(float(edges[band + 1]))],
                "examples": (first + np.flatnonzero(found["band"] == band)).tolist(),
                "drawn": int(drawn[band]),
                "novelty": significant(float(share[band])),
                "p": significant(float(chance[band])),
            }
            for band in range(len(quantiles) - 1)
        ]

    @cached_property
    def _middle_differs(self) -> NDArray[np.bool_]:
        return self.described.bands.middle_differs()

    @cached_property
    def _band_tokens(self) -> np.ndarray:
        """The tokens that stand for bands, each beside its window."""
        bands = self.layer.bands
        return np.flatnonzero(bands["rank"] < self.config.examples.per_band)

    @cached_property
    def _band_starts(self) -> list[int]:
        """Unit `u` owns the band tokens `_band_starts[u]:_band_starts[u + 1]`."""
        units = self.layer.bands["unit"][self._band_tokens]
        starts: list[int] = np.searchsorted(units, np.arange(self.layer.units + 1)).tolist()
        return starts

    def _shown_of_bands(self, unit: int) -> tuple[np.ndarray, NDArray[np.float32]]:
        """The tokens that are shown of a unit's bands, and the activations around each."""
        place = slice(self._band_starts[unit], self._band_starts[unit + 1])
        found = self.layer.bands[self._band_tokens[place]]
        shown = found["rank"] < self.config.site.band_examples_shown
        return found[shown], self.layer.band_windows[place][shown]

    def _band_examples(self, unit: int, grain: float) -> list[Record]:
        tokens, windows = self._shown_of_bands(unit)
        return self._places(tokens, to_grain(windows, grain), self._around(*_AROUND_A_BAND))

    def _around(self, before: int, after: int) -> tuple[int, int]:
        """Tokens to show before and after a key token, at most those that are kept."""
        kept = self.config.examples.window
        return min(before, kept[0]), min(after, kept[1])

    def _of(self, unit: int) -> np.ndarray:
        starts = self.clustered.starts
        return self.clustered.behaviours[starts[unit] : starts[unit + 1]]

    def _behaviours(self, unit: int, labels: NDArray[np.int32], place: dict[int, int]) -> list[Record]:
        found = []
        for number, behaviour in enumerate(self._of(unit), start=int(self.clustered.starts[unit])):
            described = self.described.behaviours[number]
            central = int(behaviour["central"] - self.layer.starts[unit])
            found.append(
                {
                    "id": int(behaviour["id"]) + 1,  # people count from one
                    "sign": int(behaviour["sign"]),
                    "size": int(behaviour["size"]),
                    "coverage": significant(float(behaviour["coverage"])),
                    "stability": significant(float(behaviour["stability"])),
                    "label": described["label"],
                    "tokens": [[self._texts[token], significant(weight)] for token, weight in described["tokens"]],
                    "next": [[self._texts[token], significant(share)] for token, share in described["next"]],
                    "central": place[central],
                    "examples": [index for example, index in place.items() if labels[example] == behaviour["id"]],
                    "neighbours": self._neighbours(self._first_behaviour + number),
                }
            )
        return found

    def _neighbours(self, number: int) -> list[Record]:
        links, most = self.stages.links, self.config.site.neighbours_shown
        return [
            {
                "id": unit_id(self.config.atlas.id, int(layer), int(unit)),
                "behaviour": int(behaviour) + 1,
                "similarity": significant(float(similarity)),
                "wiring": significant(float(wiring)),
            }
            for (layer, unit, behaviour), similarity, wiring in zip(
                links.address[links.neighbours[number, :most]],
                links.similarities[number, :most],
                links.wiring[number, :most],
                strict=True,
            )
            if not np.isnan(similarity)
        ]

    def _examples(
        self, unit: int, shown: Sequence[int], labels: NDArray[np.int32], grains: dict[int, float]
    ) -> list[Record]:
        """The examples at these places of the unit, each with the number of its behaviour, −1 for none."""
        examples = self.layer.of(unit)[shown]
        windows = np.empty(examples["window"].shape)  # (shown, window)
        for sign, grain in grains.items():
            own = examples["sign"] == sign
            windows[own] = to_grain(examples["window"][own], grain)
        found = self._places(
            examples, windows, self._around(self.config.site.tokens_before, self.config.site.tokens_after)
        )
        first = int(self.layer.starts[unit])
        for place, number, label in zip(found, shown, labels.tolist(), strict=True):
            place["source"] = self._contexts.names[place["document"]]
            place["behaviour"] = label + 1 if label >= 0 else None
            importance = self.described.importance.of(first + number)
            if importance is not None:
                up_to_key = to_grain(importance[len(importance) - 1 - place["key"] :], _IMPORTANCE_GRAIN)
                place["importance"] = [None if np.isnan(value) else plain(value) for value in up_to_key.tolist()]
        return found

    def _places(self, tokens: np.ndarray, windows: NDArray[np.float64], around: tuple[int, int]) -> list[Record]:
        """Tokens of the corpus with the text around them; `windows` are the activations there: (tokens, window)."""
        context = tokens["context"]
        starts = self._contexts.starts[context]
        ends = self._contexts.starts[context + 1]
        keys = starts + tokens["position"]
        firsts, lasts = np.maximum(starts, keys - around[0]), np.minimum(ends, keys + around[1] + 1)
        offsets = self.config.examples.window[0] - keys
        return [
            {
                "document": document,
                "position": position,
                "key": key,
                "tokens": [self._texts[token] for token in self._tokens[first:last].tolist()],
                "values": [plain(value) for value in window[first + offset : last + offset]],
                "behaviour": None,
            }
            for document, position, key, first, last, offset, window in zip(
                self._contexts.document[context].tolist(),
                (self._contexts.offset[context] + tokens["position"]).tolist(),
                (keys - firsts).tolist(),
                firsts.tolist(),
                lasts.tolist(),
                offsets.tolist(),
                windows.tolist(),
                strict=True,
            )
        ]

    def _logits(self, unit: int) -> Record:
        effects = self.described.effects
        return {
            side: [
                [self._texts[token], significant(float(value))]
                for token, value in zip(tokens[unit], values[unit], strict=True)
            ]
            for side, tokens, values in (
                ("positive", effects.positive, effects.positive_values),
                ("negative", effects.negative, effects.negative_values),
            )
        }
