"""The record of a unit: all that is published of it, as plain data, made from the results of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.histogram import BINS, coarse_histogram
from atlas_builder.collect.results import CollectedLayer
from atlas_builder.config import Configuration, SiteSettings
from atlas_builder.corpus.windows import Windows
from atlas_builder.describe.shown_examples import Shown
from atlas_builder.describe.token_scores import WAYS, PredictorScores, predictor_scores
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.associations import published_associations
from atlas_builder.records.bands import LayerBands, UnitBands
from atlas_builder.records.directions import LayerDirections, published_edges
from atlas_builder.records.schema import SCHEMA as SCHEMA
from atlas_builder.records.schema import SCHEMA_FILE as SCHEMA_FILE
from atlas_builder.records.schema import Record as Record
from atlas_builder.records.schema import content_hash as content_hash
from atlas_builder.records.schema import sealed
from atlas_builder.records.schema import serialise as serialise
from atlas_builder.records.stages import Stages
from atlas_builder.records.token_graphs import published_graph
from atlas_builder.rounding import grain_of, grain_of_bands, published_values, shortest, significant, to_grain

_IMPORTANCE_GRAIN = 0.01
_AROUND_A_BAND = (5, 2)  # most tokens shown before and after a token drawn from a band
_SHARE_OF_A_RARE_ONE = (0.4, 0.3)  # of the tokens shown around other examples, of the example of a rare behaviour
_TOKENS_OF_A_RARE_ONE = 3  # that it activates on


@lru_cache(maxsize=BINS + 1)  # all histograms have the same
def _published_edge(edge: float) -> float | None:
    return significant(edge)


class LayerRecords:
    """Makes the records of one layer."""

    def __init__(self, stages: Stages, layer: CollectedLayer, config: Configuration) -> None:
        self.stages, self.layer, self.config = stages, layer, config
        _, self.clustered, self.described = stages.layer(layer.layer)
        self._texts = stages.collected.token_texts
        self._read = stages.collected.texts_read
        self._contexts = stages.collected.contexts
        self._tokens = np.asarray(self._contexts.tokens)
        self._shown = Shown(layer, self.clustered, self._contexts)

    def record(self, unit: int, site: SiteSettings | None = None) -> Record:
        """The record of a unit, with as much as `site` shows; by default the configuration's settings."""
        return self.with_bytes(unit, site)[0]

    def with_bytes(self, unit: int, site: SiteSettings | None = None) -> tuple[Record, bytes]:
        """As `record`, and the bytes of its file."""
        record = self._without_hash(unit, site)
        content = sealed(record)
        return record, content

    def _without_hash(self, unit: int, site: SiteSettings | None) -> Record:
        layer, atlas, site = self.layer, self.config.atlas, site or self.config.site
        labels = self.clustered.labels[layer.starts[unit] : layer.starts[unit + 1]]
        shown = self._shown.of(unit, site)
        place = {int(example): index for index, example in enumerate(shown)}
        # By the extremes as published, so that a reader of the record finds the same; a minimum of -9.9996 is -10.
        maximum, minimum = self._moments[unit][:2]
        grain = grain_of(maximum or 0.0)
        grains = {1: grain, -1: grain_of(-(minimum or 0.0))}
        bands = self._bands.of(unit, len(shown), site.band_examples_shown)
        around = self._around(site.tokens_before, site.tokens_after)
        associated = self.described.associations
        return {
            "schema": SCHEMA,
            "id": UnitAddress(layer.layer, unit).within(atlas.id),
            "atlas": {"id": atlas.id, "version": atlas.version},
            "layer": layer.layer,
            "unit": unit,
            "kind": self.stages.collected.facts["kind"],
            **self._of_output_neuron(unit),
            "stats": self._stats(unit),
            "polysemanticity": self._measures(unit, side=0),
            "negative": {"polysemanticity": self._measures(unit, side=1)} if layer.signs == 2 else None,
            "behaviours": self._behaviours(unit, labels, place, site.neighbours_shown),
            "bands": bands.records,
            "middle_differs": bool(self._bands.middle_differs[unit]),
            "examples": [
                *self._examples(unit, shown, labels[shown], grains, self._around_each(unit, labels[shown], around)),
                *self._band_examples(bands, grain_of_bands(maximum or 0.0, minimum or 0.0)),
            ],
            "logits": self._logits(unit),
            "prediction": self._prediction(unit),
            "steering": self._steering(unit),
            "associations": published_associations(associated[unit], self._read) if associated else None,
            **self._of_directions(unit),
        }

    def outline(self, unit: int) -> Record:
        """What `digest_of` looks at of a unit's record, without the examples that are shown."""
        listed = self._listed[slice(*self.clustered.starts[unit : unit + 2].tolist())]
        central = self.layer.examples[[behaviour["central"] for behaviour in listed]]
        documents = self._contexts.document[central["context"]].tolist()
        positions = (self._contexts.offset[central["context"]] + central["position"]).tolist()
        examples = [{"document": one, "position": other} for one, other in zip(documents, positions, strict=True)]
        behaviours = [{**one, "id": one["id"] + 1, "central": place} for place, one in enumerate(listed)]
        return {"stats": self._stats(unit), "behaviours": behaviours, "examples": examples}

    def plane(self, unit: int, sign: int) -> tuple[NDArray[np.float32], NDArray[np.int32], float]:
        """Principal coordinates of a unit's examples of one sign, their behaviours, and the share of variance.

        (examples, 2) and (examples,), behaviours from 1, 0 for unclustered; the share is as in `embeddings.Plane`.
        """
        first, examples = self.layer.of_side(unit, sign)
        rows = slice(first, first + len(examples))
        side = 0 if sign > 0 else 1
        return (
            self.clustered.points[rows],
            self.clustered.labels[rows] + 1,
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
            "histogram": {"edges": list(map(_published_edge, edges)), "counts": counts},
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

    @cached_property
    def _bands(self) -> LayerBands:
        return LayerBands(self.layer, self.described, self.config.examples)

    def _band_examples(self, bands: UnitBands, grain: float) -> list[Record]:
        return self._places(bands.tokens, to_grain(bands.windows, grain), self._around(*_AROUND_A_BAND))

    def _around(self, before: int, after: int) -> tuple[int, int]:
        """The numbers of tokens to show before and after a key token, at most those that were collected."""
        kept = self.config.examples.window
        return min(before, kept[0]), min(after, kept[1])

    def _around_each(
        self, unit: int, labels: NDArray[np.int32], around: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of tokens to show before and after each example, by its behaviour: (examples,) each."""
        is_rare = ~np.array([*self._shown.main(unit), True])[labels]
        before, after = (
            np.where(is_rare, int(share * most), most) for share, most in zip(_SHARE_OF_A_RARE_ONE, around, strict=True)
        )
        return before, after

    def _behaviours(self, unit: int, labels: NDArray[np.int32], place: dict[int, int], neighbours: int) -> list[Record]:
        first, numbers = int(self.layer.starts[unit]), range(*self.clustered.starts[unit : unit + 2].tolist())
        examples: list[list[int]] = [[] for _ in numbers]
        for example, index in place.items():
            if labels[example] >= 0:
                examples[labels[example]].append(index)
        records = []
        for number, members, is_main in zip(numbers, examples, self._shown.main(unit), strict=True):
            behaviour, described = self._listed[number], self.described.behaviours[number]
            records.append(
                {
                    "id": behaviour["id"] + 1,  # people count from one
                    "sign": behaviour["sign"],
                    "size": behaviour["size"],
                    "coverage": behaviour["coverage"],
                    "stability": behaviour["stability"],
                    "label": described["label"],
                    "tokens": self._weighed(
                        described["tokens"] if is_main else described["tokens"][:_TOKENS_OF_A_RARE_ONE]
                    ),
                    "next": self._weighed(described["next"]) if is_main else [],
                    "central": place[behaviour["central"] - first],
                    "examples": members,
                    "neighbours": self._neighbours(number, neighbours if is_main else 0),
                    **self._graph(number, is_main),
                }
            )
        return records

    def _graph(self, number: int, is_main: bool) -> Record:
        """The graph of one of the layer's main behaviours; nothing where graphs were not asked for."""
        saved = self.described.graphs
        if saved is None or not is_main:
            return {}
        return {"graph": published_graph(saved.behaviours[number].graph, self._texts)}

    def _weighed(self, tokens: Sequence[tuple[int, float]]) -> list[list[Any]]:
        """Texts of tokens, or of characters that they are parts of, with their weights."""
        return [[self._read[token], significant(weight)] for token, weight in tokens]

    @cached_property
    def _listed(self) -> list[Record]:
        """The layer's behaviours from the cluster stage, with rounded numbers."""
        behaviours = self.clustered.behaviours
        columns = [
            published_values(behaviours[name]) if behaviours.dtype[name].kind == "f" else behaviours[name].tolist()
            for name in behaviours.dtype.names or ()
        ]
        return [dict(zip(behaviours.dtype.names or (), row, strict=True)) for row in zip(*columns, strict=True)]

    def _neighbours(self, number: int, limit: int) -> list[Record]:
        """The behaviours most similar to one of the layer's, given its place in the layer."""
        addresses, similarities, weight_cosines = self._near
        return [
            {
                "id": UnitAddress(layer, unit).within(self.config.atlas.id),
                "behaviour": behaviour + 1,
                "similarity": similarity,
                "wiring": weight_cosine,
            }
            for (layer, unit, behaviour), similarity, weight_cosine in zip(
                addresses[number][:limit], similarities[number][:limit], weight_cosines[number][:limit], strict=True
            )
            if similarity is not None
        ]

    @cached_property
    def _near(self) -> tuple[list[Any], list[Any], list[Any]]:
        """For each of the layer's behaviours, the addresses, similarities and weight cosines of its neighbours."""
        links, limit = self.stages.links, self.config.site.neighbours_shown
        first = links.first_of(self.layer.layer)
        rows = np.s_[first : first + len(self.clustered.behaviours), :limit]
        addresses = links.address[links.neighbours[rows]].tolist()
        return addresses, published_values(links.similarities[rows]), published_values(links.weight_cosine[rows])

    def _examples(
        self,
        unit: int,
        shown: Sequence[int],
        labels: NDArray[np.int32],
        grains: dict[int, float],
        around: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> list[Record]:
        """The unit's examples at the places `shown`; `labels` are those of their behaviours, −1 for unclustered."""
        examples = self.layer.of(unit)[shown]
        windows = np.empty(examples["window"].shape)  # (shown, window)
        for sign, grain in grains.items():
            of_sign = examples["sign"] == sign
            windows[of_sign] = to_grain(examples["window"][of_sign], grain)
        records = self._places(examples, windows, around)
        first = int(self.layer.starts[unit])
        for record, number, label in zip(records, shown, labels.tolist(), strict=True):
            record["source"] = self._contexts.names[record["document"]]
            record["behaviour"] = label + 1 if label >= 0 else None
            importance = self.described.importance.of(first + number)
            if importance is not None:
                up_to_key = to_grain(importance[len(importance) - 1 - record["key"] :], _IMPORTANCE_GRAIN)
                record["importance"] = [None if np.isnan(value) else shortest(value) for value in up_to_key.tolist()]
        return records

    def _places(
        self,
        tokens: np.ndarray,
        windows: NDArray[np.float64],
        around: tuple[int | NDArray[np.int64], int | NDArray[np.int64]],
    ) -> list[Record]:
        """Tokens of the corpus with the text around them; `windows` are the activations there: (tokens, window)."""
        context, kept = tokens["context"], self.config.examples.window
        whole = self._contexts.windows(context, tokens["position"], *around).whole(self._contexts.begins, kept)
        offsets = kept[0] - whole.key
        records = [
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
                (whole.key - whole.first).tolist(),
                whole.first.tolist(),
                whole.last.tolist(),
                offsets.tolist(),
                windows.tolist(),
                strict=True,
            )
        ]
        for record, own in zip(records, self._of_chat(whole), strict=False):
            record.update(own)
        return records

    def _of_chat(self, places: Windows) -> list[Record]:
        """The roles of key tokens, and which tokens around are a chat template's own; nothing without one."""
        roles, special = self._contexts.role_at(places.key), self._contexts.special
        if roles is None or special is None:
            return []
        own = [
            np.flatnonzero(special[first:last]).tolist() for first, last in zip(places.first, places.last, strict=True)
        ]
        return [{"role": role, **({"special": found} if found else {})} for role, found in zip(roles, own, strict=True)]

    def _logits(self, unit: int) -> Record:
        return {
            side: [[self._texts[token], value] for token, value in zip(tokens[unit], values[unit], strict=True)]
            for side, (tokens, values) in self._effects.items()
        }

    @cached_property
    def _effects(self) -> dict[str, tuple[list[list[int]], list[list[float | None]]]]:
        """The tokens that each unit promotes and suppresses most, and the direct logit effects."""
        effects = self.described.effects
        return {
            "positive": (effects.positive.tolist(), published_values(effects.positive_values)),
            "negative": (effects.negative.tolist(), published_values(effects.negative_values)),
        }

    def _of_output_neuron(self, unit: int) -> Record:
        """The token of an output neuron; nothing for other kinds of units."""
        tokens = self.stages.output_tokens
        return {} if tokens is None else {"token": tokens[unit]}

    def _of_directions(self, unit: int) -> Record:
        """What a direction is, or which directions a neuron reads; nothing where there are none."""
        if self._directions is None:
            return {}
        if self.stages.collected.facts["kind"] == "basis":
            return {"direction": self._directions.direction(unit)}
        return {"reads": self._directions.reads(unit)}

    @cached_property
    def _directions(self) -> LayerDirections | None:
        rotation, interactions = self.stages.rotation, self.stages.interactions
        if rotation is None or not self.config.rotates:  # directions of a former build may be there
            return None
        layer = self.layer.layer
        edges = None if interactions is None else partial(published_edges, interactions, layer)
        return LayerDirections(rotation.layer(layer), edges)

    def _prediction(self, unit: int) -> Record | None:
        predicted = self._predicted
        if predicted is None:
            return None
        positives, ways = predicted
        scores = {way: dict(zip(PredictorScores._fields, rows[unit], strict=True)) for way, rows in ways.items()}
        return {"fired": positives[unit], **scores}

    @cached_property
    def _predicted(self) -> tuple[list[int], dict[str, list[list[float | None]]]] | None:
        """The number of held-out tokens on which each unit fires, and the scores of each predictor."""
        counts = self.described.prediction
        if counts is None:
            return None
        ways = {
            way: published_values(np.stack(predictor_scores(counts, way), axis=1))
            for way in WAYS
            if way != "graph" or self.described.graphs is not None
        }
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
        """The tokens that become more and less probable with each unit clamped to its maximum, and by how much."""
        changes = self.described.steering
        if changes is None:
            return None
        return {side: (changes[side].tolist(), published_values(changes[f"{side}_by"])) for side in ("more", "less")}
