"""Excerpts of targets, read from the model in one pass, before the first question."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.explain.excerpts import Excerpt, ExcerptPlace, character_borders, cut_one
from atlas_builder.explain.judging import Materials
from atlas_builder.explain.plans import TargetPlan, behaviour_plan, pool_of, unit_plan
from atlas_builder.explain.targets import ExplainTarget, Targets
from atlas_builder.explain.trials import detection_trial, fuzzing_trial, quiet_excerpts
from atlas_builder.progress import Progress
from atlas_builder.records.schema import Record
from atlas_builder.rerun.passes import UnitTrace, trace_units
from atlas_builder.rerun.source import Rerun

_Cut = dict[tuple[ExplainTarget, ExcerptPlace], Excerpt]


class _Planned(NamedTuple):
    """The excerpts of a target, and the highest activation of its unit on the side of its sign."""

    sign: int
    maximum: float
    plan: TargetPlan


class MaterialsReader:
    """Reads what targets of an atlas are explained from and scored on."""

    def __init__(self, source: Rerun, targets: Targets, seed: int) -> None:
        self._source, self._targets, self._seed = source, targets, seed
        self._lengths = np.array([len(tokens) for _, _, tokens in source.text.contexts], np.int64)

    def read(
        self, wanted: Sequence[ExplainTarget], record_of: Callable[[ExplainTarget], Record], progress: Progress
    ) -> dict[ExplainTarget, Materials]:
        """The materials of targets, without those that never fire; `record_of` gives the record of a target's unit."""
        planned = {
            **self._units([target for target in wanted if not target.behaviour], progress),
            **{target: self._behaviour(target, record_of(target)) for target in wanted if target.behaviour},
        }
        planned = {target: one for target, one in planned.items() if one.maximum > 0}
        excerpts = self._excerpts(planned, progress)
        return {target: self._materials(target, one, excerpts) for target, one in planned.items()}

    def _units(self, wanted: Sequence[ExplainTarget], progress: Progress) -> dict[ExplainTarget, _Planned]:
        units: dict[int, list[int]] = defaultdict(list)
        for target in wanted:
            units[target.layer].append(target.unit)
        if not units:
            return {}
        source = self._source
        with progress.task("read", total=source.text.tokens, unit="tokens") as advance:
            traces = trace_units(source.reader, source.text, units, advance)
        return {
            ExplainTarget(layer, unit): self._unit(ExplainTarget(layer, unit), traces[layer], column)
            for layer, numbers in units.items()
            for column, unit in enumerate(numbers)
        }

    def _unit(self, target: ExplainTarget, trace: UnitTrace, column: int) -> _Planned:
        high = trace.high[:, column]
        pool = self._pools[target.layer]
        plan = unit_plan(high, trace.high_at[:, column], self._lengths, pool, [self._seed, target.layer, target.unit])
        return _Planned(1, float(high.max(initial=0)), plan)

    def _behaviour(self, target: ExplainTarget, record: Record) -> _Planned:
        sign, stats = self._targets.sign(target), record["stats"]
        examples = self._targets.examples(target.layer, target.unit)
        places = [
            self._place(document, position)
            for document, position in zip(examples.documents.tolist(), examples.positions.tolist(), strict=True)
        ]
        own = np.flatnonzero(examples.behaviours == target.behaviour)
        ranked = own[np.argsort(-np.abs(examples.activations[own]), kind="stable")]
        plan = behaviour_plan(
            [places[row] for row in ranked.tolist()],
            [context for context, _ in places],
            self._lengths,
            self._pools[target.layer],
            [self._seed, *target],
        )
        return _Planned(sign, float((stats["max"] if sign > 0 else -(stats["min"] or 0.0)) or 0.0), plan)

    def _place(self, document: int, position: int) -> tuple[int, int]:
        """The context of a token of a document, and its position there."""
        first, starts = self._documents[document]
        number = bisect_right(starts, position) - 1
        return first + number, position - starts[number]

    @cached_property
    def _documents(self) -> dict[int, tuple[int, list[int]]]:
        """The first context of each document, and where its contexts start."""
        found: dict[int, tuple[int, list[int]]] = {}
        for number, (document, start, _) in enumerate(self._source.text.contexts):
            found.setdefault(document, (number, []))[1].append(start)
        return found

    @cached_property
    def _pools(self) -> dict[int, NDArray[np.int64]]:
        contexts = len(self._source.text)
        return {layer: pool_of(contexts, layer, self._seed) for layer in self._targets.units}

    def _excerpts(self, planned: Mapping[ExplainTarget, _Planned], progress: Progress) -> _Cut:
        """All excerpts of all plans, in one pass over their contexts."""
        reader, text = self._source.reader, self._source.text
        wanted: dict[int, list[tuple[ExplainTarget, ExcerptPlace]]] = defaultdict(list)
        for target, one in planned.items():
            for place in one.plan.places:
                wanted[place.context].append((target, place))
        layers = sorted({target.layer for target in planned})
        excerpts: _Cut = {}
        with progress.task("read excerpts", total=len(wanted), unit="contexts") as advance:
            for batch, seen in reader.run(text, sorted(wanted), layers):
                activations = {layer: values.numpy() for layer, (_, values) in seen.items()}
                for row, context in enumerate(batch):
                    tokens = [reader.token_texts[token] for token in text.contexts[context][2]]
                    borders, counts = character_borders(tokens), ~np.array(text.special_in(context))
                    for target, place in wanted[context]:
                        values = planned[target].sign * activations[target.layer][row, :, target.unit] * counts
                        excerpts[target, place] = cut_one(place, tokens, borders, values)
                advance(len(batch))
        return excerpts

    def _materials(self, target: ExplainTarget, planned: _Planned, excerpts: _Cut) -> Materials:
        explained, top, random, range_explained, range_scored, active, idle = (
            [excerpts[target, place] for place in part] for part in planned.plan
        )
        generator = np.random.default_rng([self._seed, *target, 3])
        quiet = quiet_excerpts(idle, planned.maximum)
        return Materials(
            planned.maximum, not target.behaviour, explained, top, random, range_explained, range_scored,
            detection_trial(active, quiet, generator), fuzzing_trial(active, planned.maximum, generator),
        )  # fmt: skip
