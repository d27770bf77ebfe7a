"""What records say of directions, computed again from the model's own inputs and gradients.

Nothing of how they were found is used: the interaction basis is taken as the eigenvectors of M G.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import Configuration
from atlas_builder.models.precision import DTYPES, epsilon
from atlas_builder.progress import Progress
from atlas_builder.rerun.directions import Array, GradientReader, InputMoments, direction_tokens, moments_of
from atlas_builder.rerun.directions import PublishedDirections as Published
from atlas_builder.rerun.passes import Reader, Text
from atlas_builder.verify.report import VerificationReport, agrees
from atlas_builder.verify.unit import UnitCase

_LISTED, _IN_A_PLANE = 8, 3
_STABLE, _ALIKE, _LEAST_SHARE = 0.9, 0.3, 0.005
_PARTS = (("input",), ("gate", "linear"))
_SLACK = 2e-3
"""Of importances, relative, and of shares; sums of products of float32 gradients."""
_SLACK_OF_STABILITY = 0.005
"""Directions of nearly equal importance turn with the last digits of sums."""


class LayerMoments(NamedTuple):
    """Moments over all tokens that directions were found on, and over both halves; and some of the inputs."""

    whole: InputMoments
    halves: tuple[InputMoments, InputMoments]
    inputs: Array


class DirectionCheck:
    """Compares the directions of the layers in which units are drawn."""

    def __init__(
        self,
        config: Configuration,
        reader: Reader,
        text: Text,
        published: Published,
        layers: Sequence[int],
        progress: Progress,
    ) -> None:
        self._config, self._reader, self._text, self._published = config, reader, text, published
        self._layers, self._progress = list(layers), progress
        self._slack = max(_SLACK, 8 * epsilon(DTYPES[config.model.dtype]))
        self._checked: set[int] = set()

    def check(self, case: UnitCase) -> None:
        """Compare what a record says of its direction, or of the directions that its neuron reads."""
        own = case.record.get("direction") or case.record.get("reads")
        if not self._config.rotates:
            if own:
                case.report.wrong(f"{case.name} is published with directions, against the settings")
            return
        if not own:
            case.report.wrong(f"{case.name} is published without directions, against the settings")
            return
        layer = self._of(case.layer)
        if case.layer not in self._checked:
            self._checked.add(case.layer)
            layer.check_arrays(case.report, case.layer)
        if "direction" in case.record:
            layer.check_direction(case, own)
            self._check_effect(case)
        else:
            layer.check_reads(case, own)

    def _check_effect(self, case: UnitCase) -> None:
        """Compare the mean effect through the MLP of a direction with that of small steps."""
        found = self._gradients.mean_change(
            case.layer, self._moments[case.layer].inputs, self._published.of(case.layer, "decode")[case.unit]
        )
        if found is None:
            return
        claimed = self._published.of(case.layer, "effect")[case.unit]
        case.report.count("mean effects")
        off = float(np.abs(found - claimed).max() / (np.abs(claimed).max() or 1))
        case.report.note("mean effects", off)
        if off > self._slack:
            case.report.wrong(f"{case.name}: its mean effect through the MLP is not that of small steps")

    def _of(self, layer: int) -> _LayerCheck:
        if layer not in self._layer_checks:
            neurons = self._reader.weights.of_neurons(layer, slice(None))
            self._layer_checks[layer] = _LayerCheck(
                self._config, layer, self._moments[layer], self._published, neurons.astype(np.float64), self._slack
            )
        return self._layer_checks[layer]

    @cached_property
    def _layer_checks(self) -> dict[int, _LayerCheck]:
        return {}

    @cached_property
    def _gradients(self) -> GradientReader:
        return self._reader.gradients(self._published.layers)

    @cached_property
    def _moments(self) -> Mapping[int, LayerMoments]:
        contexts = self._text.contexts
        chosen = direction_tokens(
            [len(tokens) for _, _, tokens in contexts],
            [document for document, _, _ in contexts],
            self._config.interaction.max_tokens,
        )
        rows: dict[int, list[_Rows]] = {layer: [] for layer in self._layers}
        with self._progress.task("gradients", total=len(chosen.contexts), unit="contexts") as advance:
            for number in chosen.contexts:
                for layers, target in self._runs:
                    found = self._gradients.read(number, contexts[number][2], layers, target)
                    for layer, (inputs, gradients) in found.items():
                        rows[layer].append((inputs.astype(np.float32), gradients.astype(np.float32)))
                advance(1)
        return {layer: _moments(parts, chosen.half) for layer, parts in rows.items()}

    @property
    def _runs(self) -> list[tuple[list[int], tuple[int, Array] | None]]:
        """Layers that are read in one run, and what the gradient is of."""
        if self._config.units.basis != "local":
            return [(self._layers, None)]
        every = self._published.layers
        following = dict(itertools.pairwise(every))
        return [
            (
                [layer],
                (following[layer], self._published.of(following[layer], "encode")) if layer in following else None,
            )
            for layer in self._layers
        ]


_Rows = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Inputs and gradients of a context: (tokens, d) each."""


def _moments(parts: Sequence[_Rows], half: Sequence[int]) -> LayerMoments:
    def joined(side: int | None) -> tuple[Array, Array]:
        kept = [part for part, of in zip(parts, half, strict=True) if side in (None, of)]
        inputs, gradients = (np.concatenate([part[place] for part in kept]).astype(np.float64) for place in (0, 1))
        return inputs, gradients

    every = joined(None)
    return LayerMoments(moments_of(*every), (moments_of(*joined(0)), moments_of(*joined(1))), every[0])


class _LayerCheck:
    """The directions of one layer."""

    def __init__(
        self,
        config: Configuration,
        layer: int,
        moments: LayerMoments,
        published: Published,
        neurons: Array,
        slack: float,
    ) -> None:
        self._basis, self._layer, self._moments, self._slack = config.units.basis, layer, moments, slack
        self._encode, self._decode = published.of(layer, "encode"), published.of(layer, "decode")
        self._mean, self._neurons = published.of(layer, "mean"), neurons
        covariance, pulled = moments.whole.covariance, moments.whole.pulled
        self._variance = (self._encode * (covariance @ self._encode)).sum(0)
        self._importance = self._variance * ((self._decode @ pulled) * self._decode).sum(1)

    def check_arrays(self, report: VerificationReport, layer: int) -> None:
        """Compare what makes the published arrays directions of their kind."""
        covariance = self._moments.whole.covariance
        scale = np.sqrt(np.outer(self._variance, self._variance))
        products = self._encode.T @ covariance @ self._encode / scale
        deviations = np.sqrt(np.diag(covariance))
        through = self._encode.T @ covariance / self._variance[:, None]
        claims = {
            "mean": np.abs(self._mean - self._moments.whole.mean).max() / deviations.max(),
            "uncorrelated coordinates": np.abs(products - np.eye(len(products))).max(),
            "decoding": np.abs((self._decode - through) / np.abs(through).max(axis=1, keepdims=True)).max(),
        }
        if self._basis in ("global", "local"):
            pulled = self._decode @ self._moments.whole.pulled @ self._decode.T
            claims["unit effect"] = np.abs(pulled - np.eye(len(pulled)))[: _leading(self._importance)].max()
        if self._basis == "principal":
            claims["length"] = np.abs(self._encode.T @ self._encode - np.eye(len(products))).max()
        for what, off in claims.items():
            report.count("directions")
            report.note("directions", float(off))
            if off > 20 * self._slack:
                report.wrong(f"layer {layer}: its directions are not of the {self._basis} basis by {what} ({off:.2g})")

    def check_direction(self, case: UnitCase, claimed: dict[str, Any]) -> None:
        """Compare a direction's importance, share, rank, stability, plane and readers."""
        report, name, unit = case.report, case.name, case.unit
        importance, total = float(self._importance[unit]), float(self._importance.sum())
        report.compare("importance", f"{name}: importance", claimed["importance"], importance, self._slack, importance)
        report.compare(
            "importance", f"{name}: share", claimed["share"], importance / total, self._slack, importance / total
        )
        near = self._slack * importance
        ranks = [1 + int((self._importance > importance + way * near).sum()) for way in (1, -1)]
        report.count("importance")
        if not min(ranks) <= claimed["rank"] <= max(ranks):
            report.wrong(f"{name}: rank is published as {claimed['rank']}, but is {ranks[0]}")
        stability, likeness = self._stability
        report.compare(
            "stability",
            f"{name}: direction's stability",
            claimed["stability"],
            float(stability[unit]),
            _SLACK_OF_STABILITY,
        )
        listed = claimed["plane"]
        if (claimed["stability"] < _STABLE) or listed:
            self._check_list(report, f"{name}: plane", listed, likeness[unit], _IN_A_PLANE, _ALIKE, _SLACK_OF_STABILITY)
        shares = self._shares[:, :, unit]
        names = _PARTS[len(shares) - 1]
        readers = [
            [names.index(one["part"]) * shares.shape[1] + one["unit"], one["share"]] for one in claimed["readers"]
        ]
        self._check_list(report, f"{name}: readers", readers, shares.ravel(), _LISTED, _LEAST_SHARE, self._slack)

    def check_reads(self, case: UnitCase, claimed: Sequence[dict[str, Any]]) -> None:
        """Compare the shares of the directions that a neuron reads, and the rest."""
        shares = self._shares[:, case.unit]  # (parts, k)
        names = _PARTS[len(shares) - 1]
        if [part["part"] for part in claimed] != list(names):
            case.report.wrong(
                f"{case.name}: reads is published of {[part['part'] for part in claimed]}, not of {names}"
            )
            return
        for part, own in zip(claimed, shares, strict=True):
            what = f"{case.name}: reads of its {part['part']}"
            rest = 1 - sum(own[number] for number, _ in part["directions"])
            case.report.compare("reads", f"{what}: the rest", part["rest"], max(0.0, float(rest)), self._slack)
            if part["rest"] is not None:
                self._check_list(case.report, what, part["directions"], own, _LISTED, _LEAST_SHARE, self._slack)

    def _check_list(
        self,
        report: VerificationReport,
        what: str,
        listed: Sequence[Sequence[Any]],
        values: Array,
        most: int,
        least: float,
        slack: float,
    ) -> None:
        """Compare a list of the largest values: which, in falling order, and how large."""
        values = np.nan_to_num(values)
        report.count("reads", len(listed))
        for place, value in listed:
            report.note("reads", abs(value - values[place]))
            if not agrees(value, float(values[place]), slack):
                report.wrong(f"{what}: {place} is published as {value:.4g}, but computed as {values[place]:.4g}")
        if [value for _, value in listed] != sorted((value for _, value in listed), reverse=True):
            report.wrong(f"{what} is not in falling order")
        left = np.delete(values, [int(place) for place, _ in listed])
        smallest = min((values[int(place)] for place, _ in listed), default=np.inf) if len(listed) >= most else least
        if left.max(initial=0) > smallest + slack or len(listed) > most:
            report.wrong(f"{what}: one that is larger than one published is missing, or there are too many")

    @cached_property
    def _shares(self) -> Array:
        """(parts, units, k), NaN where what is read does not vary."""
        total = ((self._neurons @ self._moments.whole.covariance) * self._neurons).sum(-1)
        level = np.square(self._neurons).sum(-1) * np.diag(self._moments.whole.covariance).mean()
        through = np.square(self._neurons @ self._decode.T) * self._variance
        known = total > 1e-12 * level
        shares: Array = np.where(known[..., None], through / np.where(known, total, 1)[..., None], np.nan)
        return shares

    @cached_property
    def _stability(self) -> tuple[NDArray[np.float64], Array]:
        """|correlation| of the directions of both halves, and their largest with each other direction."""
        covariance = self._moments.whole.covariance
        matched, likeness = [], np.zeros((self._encode.shape[1],) * 2)
        for half in self._moments.halves:
            directions = self._directions_of(half)
            alike = _correlations(self._encode, directions, covariance)
            matched.append(directions[:, alike.argmax(axis=1)])
            likeness = np.maximum(likeness, _correlations(matched[-1], self._encode, covariance))
        np.fill_diagonal(likeness, 0)
        return np.diag(_correlations(matched[0], matched[1], covariance)), likeness

    def _directions_of(self, half: InputMoments) -> Array:
        """Directions of half of the text, as columns of any length."""
        values, vectors = np.linalg.eigh(half.covariance)
        kept = values > 1e-9 * values[-1]
        if self._basis == "principal":
            return vectors[:, kept][:, ::-1]
        if self._basis == "random":
            return self._random(vectors[:, kept], values[kept])
        found, columns = np.linalg.eig(half.pulled @ half.covariance)
        order = np.argsort(-found.real, kind="stable")
        order = order[found.real[order] > 1e-9 * found.real.max()]
        return np.ascontiguousarray(columns[:, order].real)

    def _random(self, axes: Array, variances: Array) -> Array:
        source = np.random.Generator(np.random.Philox(key=[1, self._layer]))
        rotation = np.linalg.qr(source.standard_normal((len(axes),) * 2))[0][:, : len(variances)]
        left, _, right = np.linalg.svd(axes.T @ rotation)
        directions: Array = axes / np.sqrt(variances) @ (left @ right)
        return directions


def _leading(importance: Array) -> int:
    """Directions that matter: of the least important ones, gradients in float32 do not tell enough."""
    return max(1, int((importance > 1e-4 * importance.max()).sum()))


def _correlations(one: Array, other: Array, covariance: Array) -> Array:
    sizes = [np.sqrt((side * (covariance @ side)).sum(0).clip(1e-300)) for side in (one, other)]
    correlations: Array = np.abs(one.T @ covariance @ other) / np.outer(*sizes)
    return correlations
