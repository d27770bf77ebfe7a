"""The record of a unit: all that is published of it, as plain data, made from what the stages left."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.histogram import coarse_histogram
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import Configuration, SiteSettings
from atlas_builder.describe.shown_examples import Shown
from atlas_builder.describe.token_scores import WAYS, PredictorScores, predictor_scores
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import SCHEMA as SCHEMA
from atlas_builder.records.schema import SCHEMA_FILE as SCHEMA_FILE
from atlas_builder.records.schema import Record as Record
from atlas_builder.records.schema import content_hash as content_hash
from atlas_builder.records.schema import serialise as serialise
from atlas_builder.records.stages import Stages
from atlas_builder.rounding import grain_of, published_values, shortest, significant, to_grain

_IMPORTANCE_GRAIN = 0.01
_AROUND_A_BAND = (5, 2)  # tokens shown before and after a token drawn from a band, at most


class LayerRecords:
    """Makes the records of one layer."""

    def __init__(self, stages: Stages, layer: CollectedLayer, config: Configuration) -> None:
        self.stages, self.layer, self.config = stages, layer, config
        _, self.clustered, self.described = stages.layer(layer.layer)
        self._texts = stages.collected.token_texts
        self._contexts = stages.collected.contexts
        self._tokens = np.asarray(self._contexts.tokens)
        self._shown = Shown(layer, self.clustered, self._contexts)

    def record(self, unit: int, site: SiteSettings | None = None) -> Record:
        """The record of a unit, with as much of it as these settings show; by default the configuration's."""
        layer, atlas, site = self.layer, self.config.atlas, site or self.config.site
        labels = self.clustered.labels[layer.starts[unit] : layer.starts[unit + 1]]
        shown = self._shown.of(unit, site)
        place = {int(example): index for index, example in enumerate(shown)}
        grain = grain_of(float(layer.moments.maximum[unit]))
        # Below zero the scale is that of the minimum.
        grains = {1: grain, -1: grain_of(-float(layer.moments.minimum[unit]))}
        drawn = self._shown_of_bands(unit, site.band_examples_shown)
        around = self._around(site.tokens_before, site.tokens_after)
        record: Record = {
            "schema": SCHEMA,
            "id": UnitAddress(layer.layer, unit).within(atlas.id),
            "atlas": {"id": atlas.id, "version": atlas.version},
            "layer": layer.layer,
            "unit": unit,
            "kind": self.stages.collected.facts["kind"],
            "stats": self._stats(unit),
            "polysemanticity": self._measures(unit, side=0),
            "negative": {"polysemanticity": self._measures(unit, side=1)} if layer.signs == 2 else None,
            "behaviours": self._behaviours(unit, labels, place, site.neighbours_shown),
            "bands": self._bands(unit, drawn[0]["band"].tolist(), first=len(shown)),
            "middle_differs": bool(self._middle_differs[unit]),
            "examples": [
                *self._examples(unit, shown, labels[shown], grains, around),
                *self._band_examples(*drawn, grain),
            ],
            "logits": self._logits(unit),
            "prediction": self._prediction(unit),
            "steering": self._steering(unit),
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
        return (
            self.clustered.points[own],
            self.clustered.labels[own] + 1,
            float(self.clustered.spread[unit, side]),
        )

    def _stats(self, unit: int) -> Record:
        maximum, minimum, mean, deviation, density = self._moments[unit]
        edges, counts = coarse_histogram(self.layer.histogram[unit])
        return {
            "max": maximum,
            "min": minimum,
            "mean": mean,
            "std": deviation,
            "density": density,
            "tokens": self._counted,
            "histogram": {"edges": [significant(edge) for edge in edges], "counts": counts},
        }

    @cached_property
    def _moments(self) -> list[list[float | None]]:
        return published_values(np.stack(self.layer.moments, axis=1))

    @cached_property
    def _counted(self) -> int:
        return self.layer.tokens

    def _measures(self, unit: int, side: int) -> Record:
        return {name: column[unit][side] for name, column in self._measured.items()}

    @cached_property
    def _measured(self) -> dict[str, list[list[Any]]]:
        measures = self.clustered.measures
        return {
            name: measures[name].tolist() if measures.dtype[name].kind == "i" else published_values(measures[name])
            for name in measures.dtype.names or ()
        }

    def _bands(self, unit: int, own: Sequence[int], first: int) -> list[Record]:
        """The bands of a unit; the tokens that stand for them, of bands `own`, come after `first` other examples."""
        if np.isnan(self.layer.band_edges[unit, 0]):
            return []
        quantiles = self.config.examples.bands
        edges, drawn, share, chance = (column[unit] for column in self._banded)
        return [
            {
                "quantiles": [quantiles[band], quantiles[band + 1]],
                "range": [edges[band], edges[band + 1]],
                "examples": [first + place for place, of in enumerate(own) if of == band],
                "drawn": drawn[band],
                "novelty": share[band],
                "p": chance[band],
            }
            for band in range(len(quantiles) - 1)
        ]

    @cached_property
    def _banded(self) -> tuple[list[Any], ...]:
        """Edges of the bands of each unit, tokens drawn from each, and their novelty: its share and its p."""
        drawn, share, chance = self.described.bands
        return (
            published_values(self.layer.band_edges),
            drawn.tolist(),
            published_values(share),
            published_values(chance),
        )

    @cached_property
    def _middle_differs(self) -> NDArray[np.bool_]:
        return self.described.bands.middle_differs()

    @cached_property
    def _of_bands(self) -> np.ndarray:
        """The tokens that stand for bands, each beside its window."""
        bands = self.layer.bands
        return bands[bands["rank"] < self.config.examples.per_band]

    @cached_property
    def _band_starts(self) -> list[int]:
        """Unit `u` owns the band tokens `_band_starts[u]:_band_starts[u + 1]`."""
        starts: list[int] = np.searchsorted(self._of_bands["unit"], np.arange(self.layer.units + 1)).tolist()
        return starts

    def _shown_of_bands(self, unit: int, most: int) -> tuple[np.ndarray, NDArray[np.float32]]:
        """The tokens that are shown of a unit's bands, and the activations around each."""
        first, last = self._band_starts[unit : unit + 2]
        shown = first + np.flatnonzero(self._of_bands["rank"][first:last] < most)
        return self._of_bands[shown], self.layer.band_windows[shown]

    def _band_examples(self, tokens: np.ndarray, windows: NDArray[np.float32], grain: float) -> list[Record]:
        return self._places(tokens, to_grain(windows, grain), self._around(*_AROUND_A_BAND))

    def _around(self, before: int, after: int) -> tuple[int, int]:
        """Tokens to show before and after a key token, at most those that are kept."""
        kept = self.config.examples.window
        return min(before, kept[0]), min(after, kept[1])

    def _behaviours(self, unit: int, labels: NDArray[np.int32], place: dict[int, int], neighbours: int) -> list[Record]:
        first, own = int(self.layer.starts[unit]), range(*self.clustered.starts[unit : unit + 2].tolist())
        examples: list[list[int]] = [[] for _ in own]
        for example, index in place.items():
            if labels[example] >= 0:
                examples[labels[example]].append(index)
        found = []
        for number, members in zip(own, examples, strict=True):
            behaviour, described = self._listed[number], self.described.behaviours[number]
            found.append(
                {
                    "id": behaviour["id"] + 1,  # people count from one
                    "sign": behaviour["sign"],
                    "size": behaviour["size"],
                    "coverage": behaviour["coverage"],
                    "stability": behaviour["stability"],
                    "label": described["label"],
                    "tokens": [[self._texts[token], significant(weight)] for token, weight in described["tokens"]],
                    "next": [[self._texts[token], significant(share)] for token, share in described["next"]],
                    "central": place[behaviour["central"] - first],
                    "examples": members,
                    "neighbours": self._neighbours(number, neighbours),
                }
            )
        return found

    @cached_property
    def _listed(self) -> list[Record]:
        """The layer's behaviours as the cluster stage found them."""
        found = self.clustered.behaviours
        columns = [
            published_values(found[name]) if found.dtype[name].kind == "f" else found[name].tolist()
            for name in found.dtype.names or ()
        ]
        return [dict(zip(found.dtype.names or (), row, strict=True)) for row in zip(*columns, strict=True)]

    def _neighbours(self, number: int, most: int) -> list[Record]:
        """The behaviours most like one of the layer's, by its place there."""
        addresses, similarities, wiring = self._near
        return [
            {
                "id": UnitAddress(layer, unit).within(self.config.atlas.id),
                "behaviour": behaviour + 1,
                "similarity": similarity,
                "wiring": wired,
            }
            for (layer, unit, behaviour), similarity, wired in zip(
                addresses[number][:most], similarities[number][:most], wiring[number][:most], strict=True
            )
            if similarity is not None
        ]

    @cached_property
    def _near(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Addresses of the nearest behaviours of each of the layer's, their likeness and their wiring."""
        links, most = self.stages.links, self.config.site.neighbours_shown
        first = links.first_of(self.layer.layer)
        own = np.s_[first : first + len(self.clustered.behaviours), :most]
        addresses = links.address[links.neighbours[own]].tolist()
        return addresses, published_values(links.similarities[own]), published_values(links.weight_cosine[own])

    def _examples(
        self,
        unit: int,
        shown: Sequence[int],
        labels: NDArray[np.int32],
        grains: dict[int, float],
        around: tuple[int, int],
    ) -> list[Record]:
        """The examples at these places of the unit, each with the number of its behaviour, −1 for none."""
        examples = self.layer.of(unit)[shown]
        windows = np.empty(examples["window"].shape)  # (shown, window)
        for sign, grain in grains.items():
            own = examples["sign"] == sign
            windows[own] = to_grain(examples["window"][own], grain)
        found = self._places(examples, windows, around)
        first = int(self.layer.starts[unit])
        for place, number, label in zip(found, shown, labels.tolist(), strict=True):
            place["source"] = self._contexts.names[place["document"]]
            place["behaviour"] = label + 1 if label >= 0 else None
            importance = self.described.importance.of(first + number)
            if importance is not None:
                up_to_key = to_grain(importance[len(importance) - 1 - place["key"] :], _IMPORTANCE_GRAIN)
                place["importance"] = [None if np.isnan(value) else shortest(value) for value in up_to_key.tolist()]
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
                "values": [shortest(value) for value in window[first + offset : last + offset]],
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
        return {
            side: [[self._texts[token], value] for token, value in zip(tokens[unit], values[unit], strict=True)]
            for side, (tokens, values) in self._effects.items()
        }

    @cached_property
    def _effects(self) -> dict[str, tuple[list[list[int]], list[list[float | None]]]]:
        """The tokens that each unit does most for and against, and how much."""
        effects = self.described.effects
        return {
            "positive": (effects.positive.tolist(), published_values(effects.positive_values)),
            "negative": (effects.negative.tolist(), published_values(effects.negative_values)),
        }

    def _prediction(self, unit: int) -> Record | None:
        found = self._predicted
        if found is None:
            return None
        fired, ways = found
        said = {way: dict(zip(PredictorScores._fields, rows[unit], strict=True)) for way, rows in ways.items()}
        return {"fired": fired[unit], **said}

    @cached_property
    def _predicted(self) -> tuple[list[int], dict[str, list[list[float | None]]]] | None:
        """Held-out tokens on which each unit fires, and the scores of each way to foretell them."""
        counts = self.described.prediction
        if counts is None:
            return None
        ways = {way: published_values(np.stack(predictor_scores(counts, way), axis=1)) for way in WAYS}
        return counts["positives"].tolist(), ways

    def _steering(self, unit: int) -> Record | None:
        changes = self._steered
        maximum = self._moments[unit][0]
        if changes is None or not maximum or maximum < 0:
            return None
        return {
            side: [[self._texts[token], by] for token, by in zip(tokens[unit], values[unit], strict=True) if by]
            for side, (tokens, values) in changes.items()
        } | {"value": maximum}

    @cached_property
    def _steered(self) -> dict[str, tuple[list[list[int]], list[list[float | None]]]] | None:
        """The tokens that become more and less probable when each unit is held at its maximum, and by how much."""
        found = self.described.steering
        if found is None:
            return None
        return {side: (found[side].tolist(), published_values(found[f"{side}_by"])) for side in ("more", "less")}
