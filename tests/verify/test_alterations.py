"""Each formula of the cluster stage altered in turn: `verify`, which has its own, finds every one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from atlas_builder.cluster import background, clustering, diversity, linkage, run, stability
from atlas_builder.cluster.background import LayerBackground, UnitBackground
from atlas_builder.collect.results import selection_type
from atlas_builder.config import ClusterSettings, Configuration
from atlas_builder.config_file import validate
from atlas_builder.rerun.passes import Text
from atlas_builder.rounding import significant
from atlas_builder.verify.background import Unrelated
from atlas_builder.verify.claims import Claims
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.selection import ClaimedSide

WIDTH, TOKENS = 32, 200
SEEDS = (5, 10, 25, 13, 51, 35, 82, 21, 54)  # each alteration shows in one of these at least
LABELS = "document|behaviours|stability"  # what is in another behaviour, or is in half of the examples
Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class PlantedUnit:
    """A unit with behaviours that overlap, in a layer whose inputs have a mean and few directions."""

    seed: int

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Inputs at examples, read weights, activations from high to low, and inputs at random tokens."""
        chance = np.random.default_rng(self.seed)
        mean = chance.normal(size=WIDTH)
        read = chance.normal(size=(1 + self.seed % 2, WIDTH))
        directions = np.concatenate([chance.normal(size=(6 + 2 * (self.seed % 8), WIDTH)), 2 * read])
        directions /= np.sqrt(len(directions))
        behaviours = chance.normal(size=(2 + self.seed % 4, WIDTH)) + chance.normal(size=WIDTH)
        behaviours += chance.uniform(0, 2) * read.sum(0)
        owner = chance.integers(0, len(behaviours), 22)
        own = behaviours[owner] + chance.normal(size=(len(owner), WIDTH)) * chance.uniform(0.5, 1.6)
        unlike = 1.5 * chance.normal(size=(4 * (self.seed % 3 == 0), len(directions))) @ directions
        of_tokens = chance.normal(size=(40, len(directions)))[self.ids]
        tokens = (0.9 * of_tokens + 0.4 * chance.normal(size=of_tokens.shape)) @ directions
        values = np.sort(chance.uniform(1, 3, len(own) + len(unlike)))[::-1]
        inputs = np.concatenate([own, unlike])[chance.permutation(len(values))]
        return tuple(array.astype(np.float32) for array in (inputs + mean, read, values, tokens + mean))

    @property
    def ids(self) -> NDArray[np.int64]:
        """The tokens of the background, some of them several times."""
        return np.arange(TOKENS) % 40

    # What the cluster stage reads of a layer.
    signs = 1

    @property
    def read_weights(self) -> NDArray[np.float32]:
        return self.arrays[1][:, None]

    @property
    def inputs(self) -> NDArray[np.float32]:
        return self.arrays[0]

    @property
    def selection(self) -> np.ndarray:
        return np.array([[(0, len(self.inputs), False)]], selection_type)

    def is_random_sample(self, unit: int, sign: int) -> bool:
        return True

    def of_side(self, unit: int, sign: int) -> tuple[int, np.ndarray]:
        examples = np.zeros(len(self.inputs), [("row", "<i4"), ("value", "<f4")])
        examples["row"], examples["value"] = np.arange(len(examples)), self.arrays[2]
        return 0, examples


@cache
def _unit(seed: int) -> PlantedUnit:
    return PlantedUnit(seed)


def _config(method: str) -> Configuration:
    atlas = {"id": "planted", "title": "Planted"}
    clusters = {"method": method, "min_size": 3 if method == "hdbscan" else 2, "resamples": 4}
    return validate({"atlas": atlas, "model": {"name": "demo"}, "corpus": {"source": "stdlib"}, "clusters": clusters})


def published(unit: PlantedUnit, settings: ClusterSettings) -> dict[str, Any]:
    """The part of a record that the cluster stage makes, with every example shown."""
    layer: Any = unit
    background = LayerBackground(unit.arrays[3], unit.ids).of_unit(unit.arrays[1])
    found = run._cluster_unit(layer, 0, background, settings)
    measures = found.measures[0, 0]
    return {
        "id": f"unit {unit.seed}",
        "polysemanticity": {name: significant(float(measures[name])) for name in measures.dtype.names},
        "behaviours": [
            {"id": int(row["id"]) + 1, "sign": 1, "size": int(row["size"]), "central": int(row["central"])}
            | {name: significant(float(row[name])) for name in ("coverage", "stability")}
            for row in found.behaviours
        ],
        "bands": [],
        "examples": [
            {"document": number, "position": 0, "key": 0, "values": [float(value)]}
            | {"behaviour": label + 1 if label >= 0 else None}
            for number, (value, label) in enumerate(zip(unit.arrays[2], found.labels.tolist(), strict=True))
        ],
    }


def problems(unit: PlantedUnit, record: dict[str, Any], config: Configuration) -> list[str]:
    """What `verify` says of it."""
    inputs, read, values, tokens = unit.arrays
    report = VerificationReport()
    text = Text([(number, 0, [0]) for number in range(len(inputs))])
    at = np.zeros(len(inputs), np.int32)
    side = ClaimedSide(
        1, values.astype(np.float64), at, np.arange(len(inputs)), random=True, threshold=0.0, unsure=False
    )
    Claims(record, report, config, text, ["a"]).measures(side, inputs, read, Unrelated(tokens, unit.ids, read))
    assert report.problems or report.compared["labels"] == len(inputs)
    return report.problems


@pytest.mark.parametrize("method", ["linkage", "agglomerative", "hdbscan", "components"])
def test_what_is_not_altered_holds(method: str) -> None:
    config = _config(method)
    for seed in SEEDS:
        record = published(_unit(seed), config.clusters)
        assert problems(_unit(seed), record, config) == []


def test_every_claim_is_compared() -> None:
    config = _config("agglomerative")
    records = {seed: published(_unit(seed), config.clusters) for seed in SEEDS}
    seed, record = next((seed, record) for seed, record in records.items() if len(record["behaviours"]) > 1)

    def found(shows_in: str, **changed: Any) -> bool:
        said = problems(_unit(seed), {**record, **changed}, config)
        return any(re.search(shows_in, problem) for problem in said)

    for name, value in record["polysemanticity"].items():
        changed = 1.0 if value is None else value + 1
        assert found(name, polysemanticity={**record["polysemanticity"], name: changed}), name
    for name in ("size", "coverage", "stability"):
        first, *others = record["behaviours"]
        assert found(name, behaviours=[{**first, name: first[name] + 1}, *others]), name
    members = [place for place, example in enumerate(record["examples"]) if example["behaviour"] == 1]
    apart = [place for place in range(len(record["examples"])) if place not in members]
    for place in (members + apart)[-1], next(place for place in members if place != first["central"]):
        assert found("central example", behaviours=[{**first, "central": place}, *others])
    assert found("lists 1 behaviours, but", behaviours=[first])
    example, *more = record["examples"]
    for other in {1, 2, None} - {example["behaviour"]}:
        assert found("document 0, token 0 is published as", examples=[{**example, "behaviour": other}, *more])


@pytest.mark.parametrize(("cosine", "either"), [(0.5, True), (0.5 + 4e-6, True), (0.4999, False), (0.5001, False)])
def test_what_hangs_on_rounding_may_be_either(cosine: float, either: bool) -> None:
    """Two examples are connected from a cosine of 0.5 on."""
    inputs = np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]])
    unit = PlantedUnit(0)
    unit.__dict__["arrays"] = tuple(
        array.astype(np.float32) for array in (inputs, np.ones((1, 2)), np.array([2, 1]), np.zeros((TOKENS, 2)))
    )
    config = _config("components")
    holds = []
    for similarity in (0.4, 0.6):
        record = published(unit, config.clusters.model_copy(update={"similarity": similarity}))
        holds.append(problems(unit, record, config) == [])
    assert holds == ([True, True] if either else [cosine > 0.5, cosine < 0.5])


def in_python(patch: Patch) -> None:
    """Let the compiled functions run as plain ones, which see what is patched."""
    for module in (linkage, diversity):
        for name, function in list(vars(module).items()):
            if isinstance(function, Dispatcher):
                patch.setattr(module, name, function.py_func)


def constant(module: Any, name: str, value: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(module, name, value)


def settings_of_cluster(**changed: Any) -> Callable[[Patch], None]:
    """The stage clusters with other settings than the configuration's."""
    as_it_is = clustering.cluster

    def cluster(distances: Any, settings: ClusterSettings, dimensions: float = np.inf) -> Any:
        return as_it_is(distances, settings.model_copy(update=changed), dimensions)

    def alter(patch: Patch) -> None:
        patch.setattr(clustering, "cluster", cluster)
        patch.setattr(stability, "cluster", cluster)

    return alter


def field_of_measure(name: str, formula: Callable[[Any, Any], float]) -> Callable[[Patch], None]:
    as_it_is = clustering.measure

    def measure(distances: Any, labels: Any) -> Any:
        changed: dict[str, Any] = {name: formula(distances, labels)}
        return as_it_is(distances, labels)._replace(**changed)

    return constant(clustering, "measure", measure)


def _sizes(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.bincount(labels[labels >= 0])


def no_centring(patch: Patch) -> None:
    as_it_is = LayerBackground.__init__

    def without_mean(self: LayerBackground, inputs: Any, tokens: Any) -> None:
        as_it_is(self, inputs, tokens)
        self.centred, self.mean = self.centred + self.mean, np.zeros_like(self.mean)

    patch.setattr(LayerBackground, "__init__", without_mean)


def embedding_of_input_alone(patch: Patch) -> None:
    for module in (run, background, clustering):
        patch.setattr(module, "neuron_embeddings", lambda inputs, read: np.concatenate([inputs] * len(read), axis=1))


def pairs_of_one_token(patch: Patch) -> None:
    as_it_is = LayerBackground.__init__
    patch.setattr(LayerBackground, "__init__", lambda self, inputs, tokens: as_it_is(self, inputs, np.arange(TOKENS)))


def within_with_the_diagonal(patch: Patch) -> None:
    as_it_is = linkage._sums

    def sums(cosines: Any, groups: Any) -> Any:
        size, to_example, to_group, within = as_it_is(cosines, groups)
        return size, to_example, to_group, (within * (size - 1) + 1) / size

    patch.setattr(linkage, "_sums", sums)


def rounds(number: int) -> Callable[[Patch], None]:
    return constant(linkage.tidied, "__defaults__", (number,))


def complete_linkage(patch: Patch) -> None:
    def tree(distances: Any) -> Any:
        joined = hierarchy.linkage(squareform(distances.astype(np.float64), checks=False), "complete")
        return joined[:, :2].astype(np.int64), joined[:, 2]

    for module in (clustering, linkage):
        patch.setattr(module, "average_tree", tree)


def jaccard_without_union(patch: Patch) -> None:
    """The share of a cluster's members that stay together."""

    def stability_in(halves: Any, labels: Any) -> Any:
        found = []
        for cluster in range(int(labels.max(initial=-1)) + 1):
            shares = []
            for half in halves:
                again = half.labels[labels[half.examples] == cluster]
                if len(again) >= 2:
                    shares.append(np.bincount(again[again >= 0], minlength=1).max() / len(again))
            found.append(np.mean(shares) if shares else np.nan)
        return np.array(found)

    patch.setattr(stability, "stability_in", stability_in)


def other_samples(patch: Patch) -> None:
    as_it_is = stability.half_samples
    patch.setattr(stability, "half_samples", lambda similarities, settings, seed: as_it_is(similarities, settings, 1))


def sure_examples_alone(patch: Patch) -> None:
    """Unclustered examples are left out of the groups."""
    as_it_is = diversity.frequency_counts
    patch.setattr(diversity, "frequency_counts", lambda labels: as_it_is(labels[labels >= 0]))


def whole_entropy_as_seen(patch: Patch) -> None:
    """Extrapolation towards the entropy of the examples without a correction for the groups of one."""
    as_it_is = diversity._whole_entropy
    patch.setattr(
        diversity, "_whole_entropy", lambda counts, seen: as_it_is(counts * (np.arange(len(counts)) > 1), seen)
    )


def halves_at_their_own_reach(patch: Patch) -> None:
    as_it_is = diversity.effective_number
    patch.setattr(diversity, "effective_number", lambda counts, coverage, most=0: as_it_is(counts, coverage))


def highest_taken_for_random(patch: Patch) -> None:
    patch.setattr(PlantedUnit, "is_random_sample", lambda self, unit, sign: False)


def smallest_first(patch: Patch) -> None:
    """Behaviours numbered from the smallest."""
    as_it_is = clustering._by_size

    def by_size(labels: NDArray[np.int64]) -> NDArray[np.int32]:
        numbers = as_it_is(labels)
        return np.where(numbers < 0, numbers, numbers.max() - numbers)

    patch.setattr(clustering, "_by_size", by_size)


def left_out_by_hdbscan(patch: Patch) -> None:
    """What HDBSCAN leaves out joins no cluster."""
    as_it_is = clustering._hdbscan

    def hdbscan(distances: Any, settings: ClusterSettings) -> Any:
        with Patch.context() as within:
            within.setattr(clustering, "membership", lambda labels: np.zeros((len(labels), 0)))
            return as_it_is(distances, settings)

    patch.setattr(clustering, "_hdbscan", hdbscan)


ALTERATIONS: list[tuple[str, str, Callable[[Patch], None], str]] = [
    ("embedding", "agglomerative", embedding_of_input_alone, "mean_distance"),
    ("centring", "linkage", no_centring, LABELS),
    ("floor", "linkage", constant(UnitBackground, "floor", lambda self, embeddings, cosines: 0.0), LABELS),
    ("largest floor", "linkage", constant(background, "_LARGEST_FLOOR", 0.1), LABELS),
    ("quantile of the floor", "linkage", constant(background, "_FLOOR_QUANTILE", 0.0), LABELS),
    ("dimensions", "linkage", constant(background, "_QUANTILES", {0.9: 1.2816}), LABELS),
    ("inputs paired", "linkage", constant(background, "_PAIRED", 16), LABELS),
    ("pairs of one token", "linkage", pairs_of_one_token, LABELS),
    ("threshold of ρ", "linkage", constant(linkage, "_ONE", 0.65), LABELS),
    ("chance", "linkage", constant(linkage, "_CHANCE", 0.5), LABELS),
    ("no test of chance", "linkage", constant(linkage, "_without_chance", lambda c, d, groups: groups), LABELS),
    ("belongs", "linkage", constant(linkage, "_BELONGS", 0.5), LABELS),
    ("loosest", "linkage", constant(linkage, "_LOOSEST", 0.6), LABELS),
    ("nothing moves", "linkage", constant(linkage, "_reassign", lambda cosines, groups: False), LABELS),
    ("rounds", "linkage", rounds(1), LABELS),
    ("within", "linkage", within_with_the_diagonal, LABELS),
    ("no joins", "hdbscan", constant(linkage, "_join_most_similar", lambda cosines, groups: False), LABELS),
    ("average linkage", "linkage", complete_linkage, LABELS),
    ("average linkage, cut", "agglomerative", complete_linkage, LABELS),
    ("cut", "agglomerative", settings_of_cluster(cut=0.5), LABELS),
    ("connected", "components", settings_of_cluster(similarity=0.55), LABELS),
    ("min_size", "linkage", settings_of_cluster(min_size=4), LABELS),
    ("min_size of a cut", "agglomerative", settings_of_cluster(min_size=3), LABELS),
    ("min_size of hdbscan", "hdbscan", settings_of_cluster(min_size=4), LABELS),
    ("min_samples", "hdbscan", settings_of_cluster(min_samples=3), LABELS),
    ("epsilon", "hdbscan", settings_of_cluster(epsilon=0.7), LABELS),
    ("cut of hdbscan", "hdbscan", settings_of_cluster(cut=0.8), LABELS),
    ("left out by hdbscan", "hdbscan", left_out_by_hdbscan, LABELS),
    ("rounds of hdbscan", "hdbscan", constant(clustering, "_ROUNDS_OF_HDBSCAN", 0), LABELS),
    ("numbers of behaviours", "agglomerative", smallest_first, LABELS),
    ("effective number", "agglomerative", field_of_measure(
        "effective_behaviours", lambda _, labels: float(1 / np.sum((_sizes(labels) / _sizes(labels).sum()) ** 2))
    ), "effective_behaviours"),
    ("its interval", "agglomerative", constant(stability, "_NORMAL_95", 1.6449), "effective_(low|high)"),
    ("main behaviours", "agglomerative", constant(clustering, "MAIN_SHARE", 0.3), "main_behaviours"),
    ("interval of the main behaviours", "agglomerative", constant(stability, "_NORMAL_90", 9.0), "main_(low|high)"),
    ("main behaviours in halves", "components", constant(
        stability, "_main_in", lambda halves: [int(half.labels.max() + 1) + 1 for half in halves]
    ), "main_half"),
    ("groups of one", "agglomerative", sure_examples_alone, "sample_coverage"),
    ("sample coverage", "agglomerative", constant(
        diversity, "sample_coverage", lambda counts: float(1 - counts[1] / (len(counts) - 1))
    ), "sample_coverage"),
    ("A without a pair", "linkage", constant(
        diversity, "_unseen", lambda counts: float((len(counts) - 2) * counts[1] / max(
            (len(counts) - 2) * counts[1] + 2 * counts[2] + 0.1, 1
        ))
    ), "sample_coverage"),
    ("standard coverage", "agglomerative", constant(diversity, "STANDARD_COVERAGE", 0.45), "standard_behaviours"),
    ("coverage of fewer", "agglomerative", constant(
        diversity, "_covered", lambda drawn, sizes, groups, logs: float(
            1 - np.sum(groups * sizes * (1 - sizes / (len(logs) - 1)) ** drawn) / (len(logs) - 1)
        )
    ), "standard_behaviours"),
    ("entropy of fewer", "agglomerative", constant(
        diversity, "_entropy", lambda drawn, sizes, groups, logs: float(np.log(1 + 0.7 * (drawn - 1)))
    ), "standard_behaviours"),
    ("extrapolation", "linkage", whole_entropy_as_seen, "standard_(behaviours|low|high)"),
    ("reach of extrapolation", "linkage", constant(diversity, "_REACH", 1), "standard_(behaviours|low|high)"),
    ("reach in halves", "linkage", halves_at_their_own_reach, "standard_(low|high)"),
    ("interval at equal coverage", "agglomerative", constant(diversity, "_NORMAL_90", 1.96), "standard_(low|high)"),
    ("fewest examples", "agglomerative", constant(diversity, "LEAST_EXAMPLES", 30), "sample_coverage"),
    ("contexts that qualify", "agglomerative", lambda patch: patch.setattr(
        PlantedUnit, "selection", np.array([[(0, 7, False)]], selection_type)
    ), "qualifying_contexts"),
    ("smallest groups", "agglomerative", constant(diversity, "_LEAST_GROUP", 1), "sample_coverage"),
    ("random examples", "agglomerative", highest_taken_for_random, "richness"),
    ("richness", "linkage", constant(
        diversity, "chao1", lambda counts: diversity.Richness(float(counts.sum() + counts[1]), 1, 2)
    ), "richness is"),
    ("interval of richness", "agglomerative", constant(diversity, "_NORMAL_95", 1.6449), "richness_(low|high)"),
    ("Jaccard", "agglomerative", jaccard_without_union, "stability"),
    ("samples", "agglomerative", other_samples, "stability"),
    ("share of a sample", "agglomerative", constant(stability, "_SHARE", 0.6), "stability"),
    ("MonoScore", "agglomerative", constant(
        stability, "mono_score", lambda distances, values: float(1 - values @ distances @ values / (
            values.sum() ** 2 - values @ values
        ))
    ), "mono_score"),
    ("central example", "agglomerative", constant(clustering, "central_examples", lambda distances, labels: np.array(
        [int(np.flatnonzero(labels == cluster)[0]) for cluster in range(labels.max() + 1)]
    )), "central example"),
    ("coverage", "agglomerative", constant(
        clustering, "coverage", lambda values, labels: _sizes(labels) / len(labels)
    ), "coverage"),
    ("unclustered", "agglomerative", field_of_measure(
        "noise_fraction", lambda _, labels: float((labels < 0).sum() / max(1, (labels >= 0).sum()))
    ), "noise_fraction"),
    ("mean distance", "agglomerative", field_of_measure(
        "mean_distance", lambda distances, _: float(distances.mean())
    ), "mean_distance"),
    ("largest distance", "agglomerative", field_of_measure(
        "max_distance", lambda distances, _: float(np.quantile(distances, 0.99))
    ), "max_distance"),
    ("distance within", "agglomerative", field_of_measure("intra_distance", lambda distances, labels: float(np.mean(
        [distances[np.ix_(labels == k, labels == k)].mean() for k in range(labels.max() + 1)]
    ))), "intra_distance"),
    ("distance between", "agglomerative", field_of_measure(
        "inter_distance", lambda distances, labels: float(np.quantile(distances[labels[:, None] != labels], 0.5))
        if labels.max() > 0 else np.nan
    ), "inter_distance"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "alter", "shows_in"), [row[1:] for row in ALTERATIONS], ids=[row[0] for row in ALTERATIONS]
)
def test_an_altered_formula_is_found_out(
    method: str, alter: Callable[[Patch], None], shows_in: str, monkeypatch: Patch
) -> None:
    config = _config(method)
    in_python(monkeypatch)
    alter(monkeypatch)
    for seed in SEEDS:
        record = published(_unit(seed), config.clusters)
        found = problems(_unit(seed), record, config)
        if any(re.search(shows_in, problem) for problem in found):
            return
    pytest.fail("no problem names it")
