"""Verification of some units of a published atlas by a second run of the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration, SiteSettings
from atlas_builder.errors import ConfigurationError
from atlas_builder.models.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.rerun.directions import PublishedDirections
from atlas_builder.rerun.passes import Text, inputs_at, trace_units
from atlas_builder.rerun.source import Rerun, ids_of_output_tokens, open_rerun
from atlas_builder.site.hosting.budget import STEPS
from atlas_builder.verify.associations import check_association_lists, check_associations, check_nearly
from atlas_builder.verify.background import background_places
from atlas_builder.verify.bands import bands_of, bands_unsure, check_bands
from atlas_builder.verify.branches import NearTokens
from atlas_builder.verify.claims import Claims, check_identity, check_logits, check_statistics, check_steering
from atlas_builder.verify.directions import DirectionCheck
from atlas_builder.verify.draws import draws_differ
from atlas_builder.verify.examples import (
    Importance,
    check_examples,
    check_places,
    importance_of,
    keys_of_record,
    measured_keys,
)
from atlas_builder.verify.graphs import check_graphs, graphs_of
from atlas_builder.verify.layer import ReadLayer, choose_examples, keys_wanted, units_read
from atlas_builder.verify.neighbours import Central, Centrals
from atlas_builder.verify.own import check_output_tokens
from atlas_builder.verify.precision import stated_tolerance
from atlas_builder.verify.prediction import check_prediction
from atlas_builder.verify.records import ReadRecord, Records
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.selection import ClaimedSide
from atlas_builder.verify.shown import Key, KeyFinder
from atlas_builder.verify.tokens import check_labels, check_tokens
from atlas_builder.verify.unit import UnitCase, keys_of
from atlas_builder.verify.wording import BehaviourWords
from atlas_builder.verify.words import LayerVocabulary

_CLAMPED = 3  # a unit's strongest examples
_NUDGES = (0.0, 1.0, -1.0)  # of all activations, where a band hangs on one


def verify(
    site: Path,
    *,
    units: int = 8,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> VerificationReport:
    """Run the model again and compare all that the records of some random units claim.

    Statistics are computed over the whole corpus again, examples, tokens of bands and the layer's
    background are chosen again, examples are clustered again, of the other units of the layer as
    well, whose words decide labels; every field of the records is compared. Neighbours are looked
    for among the central examples that all records name. The model is run by transformers alone,
    and nothing of the stages of a build is used. `overrides` are `KEY=VALUE`, for a model or
    corpus that was moved since the atlas was built. Raises what `open_rerun` does.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    source = open_rerun(site, overrides)
    return Verification(site, source, source.draw(units, seed), seed, progress).report()


class Verification:
    """The second run of the layers in which units are drawn."""

    def __init__(self, site: Path, source: Rerun, chosen: dict[int, list[int]], seed: int, progress: Progress) -> None:
        self.facts, self.config, self.reader, self.text = source
        self.site, self.chosen, self.seed, self.progress = site, chosen, seed, progress
        self.counts = {int(layer["layer"]): int(layer["units"]) for layer in self.facts["layers"]}
        for layer, count in self.counts.items():
            if self.reader.weights.count(layer) != count:
                raise ConfigurationError(
                    f"layer {layer} of the model has {self.reader.weights.count(layer):,} units, but the atlas "
                    f"describes {count:,}: name the model that the atlas was built from with --set model.name=…"
                )
        self.records = Records(site, self.config.atlas.id)
        lengths = [len(tokens) for _, _, tokens in self.text.contexts]
        self.places = np.stack(
            [np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.arange(length) for length in lengths])],
            axis=1,
        )[self.text.counted]
        self.lengths = lengths
        self._inputs: dict[int, dict[Key, NDArray[np.float32]]] = {layer: {} for layer in self.counts}

    @cached_property
    def near(self) -> NearTokens:
        """The tokens that stand for others in graphs."""
        return NearTokens(self.reader)

    @cached_property
    def directions(self) -> DirectionCheck:
        """What compares directions, of the layers in which units are drawn."""
        published = PublishedDirections(self.site)
        return DirectionCheck(self.config, self.reader, self.text, published, sorted(self.chosen), self.progress)

    @cached_property
    def layers(self) -> dict[int, ReadLayer]:
        """The layers in which units are drawn, by number, without the inputs of their units."""
        weights = self.reader.weights
        read = {
            layer: units_read(len(self.text), self.counts[layer], drawn, self.seed)
            for layer, drawn in self.chosen.items()
        }
        with self.progress.task("read", total=self.text.tokens, unit="tokens") as advance:
            traces = trace_units(self.reader, self.text, read, advance, self.chosen)
        return {
            layer: ReadLayer(
                layer,
                read[layer],
                trace,
                choose_examples(trace, layer, read[layer], weights.has_negative(layer), self.config),
                [
                    Key(*place)
                    for place in background_places(self.lengths, self.config.examples.seed, layer, self.text.counted)
                ],
            )
            for layer, trace in traces.items()
        }

    @cached_property
    def described(self) -> dict[int, dict[tuple[int, int], list[BehaviourWords]]]:
        """The words of all behaviours of each of these layers."""
        return {number: layer.described(self.reader, self.text, self.config) for number, layer in self.layers.items()}

    def report(self) -> VerificationReport:
        """Compare the records of the units drawn."""
        report = VerificationReport(precision=stated_tolerance(self.config.model.dtype))
        if tokens := ids_of_output_tokens(self.facts):
            check_output_tokens(self.config, tokens, self.reader, self.text, report)
        named = self._centrals()
        self._read_inputs(named)
        inputs = [self._inputs[one.layer][one.place] for one in named]
        centrals = Centrals(named, np.array(inputs, np.float32).reshape(len(inputs), -1 if inputs else 0), self.config)
        with self.progress.task("compare", total=sum(map(len, self.chosen.values())), unit="units") as advance:
            for number, layer in self.layers.items():
                behaviours = sum(one.layer == number for one in named)
                words = LayerVocabulary(self.described[number], behaviours, len(layer.units) == self.counts[number])
                for place, unit in enumerate(self.chosen[number]):
                    part = VerificationReport()
                    record = self.records.read(UnitAddress(number, unit), part)
                    if record is not None:
                        self._compare(record, layer, place, words, centrals, part)
                    report.add(part)
                    advance(1)
        return report

    def _read_inputs(self, centrals: Sequence[Central]) -> None:
        """Read the inputs that are compared, but those that are known."""
        wanted: dict[int, set[Key]] = {layer: set() for layer in self.counts}
        for number, layer in self.layers.items():
            wanted[number].update(keys_wanted(layer.sides), layer.background)
        for one in centrals:
            wanted[one.layer].add(one.place)
        places = {layer: sorted(keys - self._inputs[layer].keys()) for layer, keys in wanted.items()}
        places = {layer: keys for layer, keys in places.items() if keys}
        contexts = len({key.context for keys in places.values() for key in keys})
        with self.progress.task("inputs", total=contexts, unit="contexts") as advance:
            found = inputs_at(self.reader, self.text, places, advance) if places else {}
        for number, rows in found.items():
            self._inputs[number].update(zip(places[number], rows, strict=True))
        for number, layer in self.layers.items():
            layer.inputs = self._inputs[number]

    def _centrals(self) -> list[Central]:
        """The central examples of all behaviours of the atlas, as its records name them."""
        finder = KeyFinder(self.text)
        found = []
        for layer, count in self.counts.items():
            for unit in range(count):
                for behaviour, document, position in self.records.centrals(UnitAddress(layer, unit)):
                    key = finder.find(document, position)
                    if key is not None:
                        found.append(Central(layer, unit, behaviour, key))
        return found

    def _compare(
        self,
        read: ReadRecord,
        layer: ReadLayer,
        place: int,
        words: LayerVocabulary,
        centrals: Centrals,
        report: VerificationReport,
    ) -> None:
        record = read.record
        values = layer.trace.values[:, place]
        case = UnitCase(record, report, self.config, self.text, self.reader.token_texts, values)
        check_identity(case, self.facts, read.raw)
        check_statistics(case)
        check_logits(case, self._logits(case))
        self.directions.check(case)
        self._associations(case)
        self._behaviours(case, layer)
        if case.behaviours is None:
            check_places(case, report)
            return
        importance = importance_of(case, self.reader, measured_keys(case))
        _add_best(report, [self._shown(case, settings, importance, centrals) for settings in _settings(self.config)])
        check_tokens(case)
        check_labels(case, words)
        graphs = graphs_of(case, self.reader, self.near, importance) if self.config.describe.graphs else None
        check_graphs(case, graphs)
        check_prediction(case, importance if self.config.describe.importance != "none" else None, graphs)
        check_steering(case, self._clamped(case))

    def _logits(self, case: UnitCase) -> NDArray[np.float64] | None:
        """The unit's direct logit effects, None where the model has none."""
        weights = self.reader.weights
        return weights.logits(weights.write(case.layer, [case.unit]))[0] if weights.has_logits else None

    def _behaviours(self, case: UnitCase, layer: ReadLayer) -> None:
        """Compare both sides' clusters, and take those that explain the record best into `case`."""
        sides = layer.sides[case.unit]
        if (case.record["negative"] is None) != (len(sides) == 1):
            case.report.wrong(f"{case.name}: measures of negative activations are published of units without, or lack")
            return
        read_weights = self.reader.weights.read(layer.number, [case.unit])[:, 0]
        unrelated = layer.unrelated(self.text, read_weights)
        case.behaviours = []
        for variants in sides:
            explanations = []
            for side in variants:
                report = VerificationReport()
                keys = [Key(int(context), int(side.at[context])) for context in side.chosen]
                inputs = layer.inputs_of(keys, read_weights.shape[1])
                claims = Claims(case.record, report, self.config, self.text, case.texts)
                clusters = claims.measures(side, inputs, read_weights, unrelated)
                explanations.append((report, side, clusters))
                if not report.problems:
                    break
            report, side, clusters = min(explanations, key=lambda one: len(one[0].problems))
            if report.problems and variants[0].unsure:
                case.behaviours = None
                return
            case.report.add(report)
            of_side = [behaviour for behaviour in case.record["behaviours"] if behaviour["sign"] == side.sign]
            if clusters is None or len(clusters) != len(of_side) or case.behaviours is None:
                case.behaviours = None  # said already
                continue
            case.sides.append(side)
            case.take(side, clusters, self._centrals_of(case, side, clusters, of_side))

    def _centrals_of(
        self, case: UnitCase, side: ClaimedSide, clusters: list[list[int]], claimed: Sequence[dict[str, Any]]
    ) -> list[Key | None]:
        keys = keys_of_record(case)
        found = []
        for cluster, behaviour in zip(clusters, claimed, strict=True):
            key = keys[behaviour["central"]]
            inside = key is not None and key.context in side.chosen[cluster]
            found.append(key if inside else None)
        return found

    def _shown(
        self, case: UnitCase, settings: SiteSettings, importance: dict[Key, Importance], centrals: Centrals
    ) -> VerificationReport:
        """Compare what depends on how much is shown."""
        shown = min(settings.band_examples_shown, self.config.examples.per_band)
        first = len(case.record["examples"]) - sum(len(band["examples"]) for band in case.record["bands"])
        bands = []
        for nudge in _NUDGES:
            found = bands_of(case, self.places, self._nudged(case, nudge))
            report = check_bands(case, case.record["bands"], found, first, shown)
            check_examples(case, settings, [key for band in found for key in band.drawn[:shown]], importance, report)
            bands.append(report)
            if not report.problems:
                break
        best = min(bands, key=lambda one: len(one.problems))
        if best.problems and self.config.model.dtype != "float32" and bands_unsure(case):
            best = VerificationReport()  # another run may draw others: what is published of them is compared alone
            check_places(case, best)
        main = [behaviour.main for behaviour in case.behaviours or ()]
        centrals.check(best, case.record, self.reader.weights, settings.neighbours_shown, main)
        return best

    def _associations(self, case: UnitCase) -> None:
        """Compare associations, with activations as they are or, where a draw hangs on an edge, nearly so.

        Where not even one agrees and another run may draw other tokens, effects and shares are compared coarsely.
        """
        check_association_lists(case)
        if case.record.get("associations") is None:
            return
        of_any_sign = self.config.units.kind == "logits"
        nudged = [self._nudged(case, nudge, of_any_sign) for nudge in _NUDGES]
        reports: list[VerificationReport] = []
        for values in nudged:
            reports.append(check_associations(case, self.places, values))
            if not reports[-1].problems:
                break
        # In 16 bits many activations are equal; where several are as an edge is, another run may part them otherwise.
        unsure = self.config.model.dtype != "float32" or (of_any_sign and draws_differ(case, self.places, nudged))
        if reports[-1].problems and unsure:
            case.report.skip("associations")
            if self.config.model.dtype == "float32":
                case.report.add(check_nearly(case, self.places, nudged[0]))
        else:
            _add_best(case.report, reports)

    @staticmethod
    def _nudged(case: UnitCase, nudge: float, of_any_sign: bool = False) -> NDArray[np.float64]:
        exact = case.counted.astype(np.float64)
        return exact + nudge * case.exactness * (np.abs(exact) + case.grain) * ((exact > 0) | of_any_sign)

    def _clamped(self, case: UnitCase) -> np.ndarray | None:
        """Clamp the unit to its maximum on its strongest examples, up to their key tokens; None where it is not."""
        maximum = float(case.counted.max(initial=0))
        if not self.config.describe.steering or not maximum > 0:
            return None
        rows = _strongest(self.text, case)
        change = self.reader.clamp_effect(rows, case.layer, case.unit, maximum)
        return None if change is None else change.numpy().astype(np.float64)


def _strongest(text: Text, case: UnitCase) -> list[list[int]]:
    keys = [key for side in case.sides if side.sign > 0 for key in keys_of(side)][:_CLAMPED]
    return [text.contexts[key.context][2][: key.position + 1] for key in keys]


def _settings(config: Configuration) -> list[SiteSettings]:
    """How much a record may show: as configured or, for a host with a limit, less."""
    steps = STEPS if config.site.host != "none" else STEPS[:1]
    fewer = [{name: min(limit, getattr(config.site, name)) for name, limit in step.items()} for step in steps]
    return [config.site.model_copy(update=step) for step in fewer]


def _add_best(report: VerificationReport, reports: Sequence[VerificationReport]) -> None:
    report.add(min(reports, key=lambda one: len(one.problems)))
