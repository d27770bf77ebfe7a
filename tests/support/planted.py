"""Units whose behaviours are known, to compare clusterings with: planted in plain arrays, and in a real model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from atlas_builder.cluster.clustering import cluster_examples
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import ClusterSettings
from atlas_builder.describe.token_shares import window_tokens

Floats = NDArray[np.float32]
Truth = NDArray[np.int64]
Labels = NDArray[np.int32]

BACKGROUND = 1024
"""Rows of a background, as many as the collect stage keeps of a layer."""


@dataclass(frozen=True)
class Plant:
    """What to plant in a unit."""

    behaviours: int = 3
    examples: int = 100
    noise: float = 0.6
    """Length of the noise beside the feature's, as the unit reads them: distances of 1 − 1 / (1 + noise²)."""
    noisiest: float | None = None
    """If given, each behaviour has its own noise, between `noise` and this."""
    overlap: float = 0.0
    """Cosine between the features of two behaviours, as the unit reads them."""
    rare: bool = False
    """Whether the last behaviour has but one example in fifty."""
    unrelated: float = 0.0
    """Share of examples that have no feature in common with any other."""
    common: float = 0.0
    """Length of a vector that all inputs of the layer share, beside the spread of the unit's inputs."""
    width: int = 768


@dataclass(frozen=True)
class Planted:
    """A unit with what makes it fire, and the background of its layer."""

    inputs: Floats  # (examples, width)
    read: Floats  # (parts, width)
    truth: Truth  # (examples,), −1 for unrelated
    background: Floats  # (BACKGROUND, width)
    background_tokens: NDArray[np.int32]  # (BACKGROUND,)

    def labels(self, settings: ClusterSettings, alone: bool = False) -> Labels:
        """The behaviours that a method finds, by neuron embedding or by the inputs alone: (examples,)."""
        return cluster_examples(
            self.inputs,
            np.ones_like(self.read[:1]) if alone else self.read,
            background=self.background,
            background_tokens=self.background_tokens,
            settings=settings,
        )


@dataclass(frozen=True)
class Score:
    """How a clustering does on a unit whose behaviours are known; unrelated examples are not asked about."""

    agreement: float
    """Adjusted Rand index; an example that no cluster takes is a cluster of its own."""
    right_number: bool
    rare_found: bool
    """Whether the last behaviour is one cluster, of its examples and no others."""
    noise: float
    """Share of the behaviours' examples that no cluster takes."""


def score(truth: Truth, labels: Labels) -> Score:
    """Hold labels against the truth, (examples,) each."""
    known = truth >= 0
    alone = np.where(labels < 0, np.arange(len(labels)) + len(labels), labels)
    last = truth == truth.max()
    theirs = np.unique(labels[last])
    return Score(
        agreement=float(adjusted_rand_score(truth[known], alone[known])),
        right_number=int(labels.max()) == int(truth.max()),
        rare_found=len(theirs) == 1 and theirs[0] >= 0 and bool(((labels == theirs[0]) == last).all()),
        noise=float((labels[known] < 0).mean()),
    )


def plant(what: Plant, seed: int) -> Planted:
    """A random unit with behaviours of known examples, in random order, and a background.

    A feature lies in a twentieth of the coordinates, where the unit reads with its own
    sign, so that it makes the unit fire. Noise is spread over all of them, also where the
    unit hardly reads.
    """
    chance = np.random.default_rng(seed)
    # Read weights of trained models have heavy tails.
    read = chance.normal(size=what.width) * np.exp(0.5 * chance.normal(size=what.width))
    truth = _owners(what)
    unrelated = int((truth < 0).sum())
    features = _features(chance, read, what.behaviours + unrelated + 1)
    shared, features = features[0], features[1:]
    features[: what.behaviours] *= np.sqrt(1 - what.overlap)
    features[: what.behaviours] += np.sqrt(what.overlap) * shared
    owner = truth.copy()
    owner[truth < 0] = what.behaviours + np.arange(unrelated)
    noise = chance.normal(size=(what.examples, what.width)) / np.linalg.norm(read)
    inputs = features[owner] + noise * _lengths(what, len(features), chance)[owner, None]
    order = chance.permutation(what.examples)
    background = _background(what, read, np.random.default_rng((seed, 1)))
    if what.common:
        direction = chance.normal(size=what.width)
        spread = np.sqrt(inputs.var(axis=0).sum())
        constant = direction * what.common * spread / np.linalg.norm(direction)
        inputs += constant
        background += constant
    return Planted(
        inputs[order].astype(np.float32),
        read[None].astype(np.float32),
        truth[order],
        background.astype(np.float32),
        np.arange(BACKGROUND, dtype=np.int32),
    )


def _background(what: Plant, read: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.float64]:
    """Inputs of the unit's layer at random tokens: features of their own, and noise like that of the examples.

    The unit reads a random feature here with its own sign, there with the other, so that it
    mostly does not fire. Where the unit has unrelated examples, the background is what
    these are: features that make it fire.
    """
    noise = chance.standard_normal((BACKGROUND, what.width), np.float32) / np.linalg.norm(read)
    noise *= _lengths(what, BACKGROUND, chance)[:, None]
    return _features(chance, read, BACKGROUND, firing=what.unrelated > 0) + noise


def _lengths(what: Plant, count: int, chance: np.random.Generator) -> NDArray[np.float64]:
    """The length of the noise of each feature: (count,)."""
    return np.full(count, what.noise) if what.noisiest is None else chance.uniform(what.noise, what.noisiest, count)


def _features(
    chance: np.random.Generator, read: NDArray[np.float64], count: int, firing: bool = True
) -> NDArray[np.float64]:
    """Features whose embeddings, feature ⊙ read, have length one; `firing` if all drive the unit: (count, width)."""
    # Coordinates are dealt out anew when all are taken, so only unrelated examples share any, and by chance.
    size = len(read) // 20
    dealt = np.concatenate([chance.permutation(len(read)) for _ in range(count // 20 + 1)])
    where = dealt[: count * size].reshape(count, size)
    values = chance.normal(size=where.shape)
    if firing:
        values = np.abs(values) * np.sign(read[where])
    values /= np.linalg.norm(values * read[where], axis=1, keepdims=True)
    features = np.zeros((count, len(read)))
    np.put_along_axis(features, where, values, axis=1)
    return features


def _owners(what: Plant) -> Truth:
    unrelated = round(what.unrelated * what.examples)
    known = what.examples - unrelated
    rare = max(1, what.examples // 50) if what.rare else 0
    common = what.behaviours - bool(rare)
    owners = np.arange(known - rare) % common
    return np.concatenate([owners, np.full(rare, what.behaviours - 1), np.full(unrelated, -1)]).astype(np.int64)


Member = tuple[CollectedLayer, int, int]
"""A unit of the demo that responds to one token: its layer, its number and the token."""


@dataclass(frozen=True)
class Joined(Planted):
    """A unit that joins several real ones; what it responds to is known from these."""

    texts: list[str]


def key_tokens(collected: Collected, examples: np.ndarray) -> NDArray[np.int32]:
    """The token at which each example is strongest: (examples,)."""
    contexts = collected.contexts
    tokens: NDArray[np.int32] = contexts.tokens[contexts.starts[examples["context"]] + examples["position"]]
    return tokens


def pure_units(collected: Collected, share: float = 0.95, least: int = 30) -> list[Member]:
    """Units nearly all of whose examples have one key token. What they do is known."""
    found = []
    for layer in collected.layers:
        for unit in range(layer.units):
            examples = layer.of_side(unit, 1)[1]
            if len(examples) >= least:
                token, count = np.unique(key_tokens(collected, examples), return_counts=True)
                if count.max() >= share * count.sum():
                    found.append((layer, unit, int(token[count.argmax()])))
    return found


def join(
    collected: Collected, members: list[Member], examples: int, rare: bool, seed: int, strangers: bool = True
) -> Joined:
    """A unit whose read weights are the sum of its members', each by its largest activation, with examples of each.

    The background is the layer's. Without `strangers`, a member's few examples at other
    tokens than its own are left out: of these it is not known whether they are alike.
    """
    chance = np.random.default_rng(seed)
    contexts, before, after = collected.contexts, 20, 10
    layer, read, picked, truth = members[0][0], 0.0, [], []
    for number, (_, unit, token) in enumerate(members):
        read = read + layer.read_weights[:, unit] / layer.moments.maximum[unit]
        own = layer.of_side(unit, 1)[1]
        if not strangers:
            own = own[key_tokens(collected, own) == token]
        few = rare and number == len(members) - 1
        count = max(2, examples // 50) if few else examples // len(members)
        picked.append(own[chance.permutation(len(own))[:count]])
        truth += [number] * len(picked[-1])
    chosen = np.concatenate(picked)
    window = window_tokens(contexts.tokens, contexts.starts, chosen["context"], chosen["position"], before, after)
    return Joined(
        layer.inputs[chosen["row"]],
        np.asarray(read, np.float32),
        np.array(truth),
        layer.background,
        layer.background_tokens,
        [" ".join(collected.token_texts[token] for token in row if token >= 0) for row in window],
    )


def groups(units: list[Member], size: int, count: int) -> list[list[Member]]:
    """Groups of units of one layer that respond to different tokens, drawn at random."""
    chance = np.random.default_rng(size)
    layers: dict[int, list[Member]] = {}
    for entry in units:
        layers.setdefault(entry[0].layer, []).append(entry)
    wide = [found for found in layers.values() if len({token for _, _, token in found}) >= size]
    drawn = []
    for _ in range(count if wide else 0):
        found = wide[int(chance.integers(len(wide)))]
        by_token = {found[place][2]: found[place] for place in chance.permutation(len(found))}
        drawn.append(list(by_token.values())[:size])
    return drawn


@dataclass(frozen=True)
class TokenLikeness:
    """How alike tokens are to the model: the cosine of their embeddings, as the model stores them."""

    directions: Floats
    """Embeddings of length one: (vocabulary, d_model)."""
    median: float
    """Median of the cosine over pairs of different tokens as they come in the corpus."""

    @classmethod
    def of(cls, embeddings: Floats, tokens: NDArray[np.integer]) -> TokenLikeness:
        """From the model's token embeddings, (vocabulary, d_model), and random tokens of the corpus, (tokens,)."""
        directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        different = tokens[:, None] < tokens
        return cls(directions, float(np.median((directions[tokens] @ directions[tokens].T)[different])))

    def unlike(self, tokens: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which pairs are of different tokens no more alike than the median: (tokens, tokens)."""
        cosines = self.directions[tokens] @ self.directions[tokens].T
        unlike: NDArray[np.bool_] = (tokens[:, None] != tokens) & (cosines <= self.median)
        return unlike


@dataclass(frozen=True)
class Real:
    """A unit of the demo as it is; of its behaviours only some pairs of examples are known."""

    unit: Planted  # truth is −1 throughout
    tokens: NDArray[np.int32]  # (examples,)


def real_units(collected: Collected, layer: CollectedLayer, count: int) -> list[Real]:
    """Units of a layer with two examples at least, drawn at random."""
    found: list[Real] = []
    for unit in np.random.default_rng(layer.layer).permutation(layer.units):
        examples = layer.of_side(int(unit), 1)[1]
        if len(examples) > 1 and len(found) < count:
            read, unknown = np.asarray(layer.read_weights[:, unit]), np.full(len(examples), -1)
            planted = Planted(layer.inputs[examples["row"]], read, unknown, layer.background, layer.background_tokens)
            found.append(Real(planted, key_tokens(collected, examples)))
    return found


@dataclass(frozen=True)
class Kept:
    """How a clustering does on a real unit, of which only some pairs of examples are known; NaN without such a pair."""

    together: float
    """Must link: share of the pairs of one key token that are in one behaviour."""
    apart: float
    """Cannot link: share of the pairs of unlike key tokens that are not in one behaviour."""


def kept(tokens: NDArray[np.integer], labels: Labels, likeness: TokenLikeness) -> Kept:
    """Hold the labels of a unit's examples against their key tokens, (examples,) each.

    An example that no cluster takes is together with no other.
    """
    one = (labels[:, None] == labels) & (labels >= 0)
    first = np.triu(np.ones_like(one), 1)
    must, cannot = first & (tokens[:, None] == tokens), first & likeness.unlike(tokens)
    return Kept(
        together=float(one[must].mean()) if must.any() else float("nan"),
        apart=float(1 - one[cannot].mean()) if cannot.any() else float("nan"),
    )
