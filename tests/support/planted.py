"""Units whose behaviours are known, to compare clusterings with: planted in plain arrays, and in a real model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.describe.token_shares import window_tokens

Floats = NDArray[np.float32]
Truth = NDArray[np.int64]


@dataclass(frozen=True)
class Plant:
    """What to plant in a unit."""

    behaviours: int = 3
    examples: int = 100
    noise: float = 0.6
    """Length of the noise beside the feature's, as the unit reads them: distances of 1 − 1 / (1 + noise²)."""
    overlap: float = 0.0
    """Cosine between the features of two behaviours, as the unit reads them."""
    rare: bool = False
    """Whether the last behaviour has but one example in fifty."""
    background: float = 0.0
    """Share of examples that have no feature in common with any other."""
    width: int = 768


@dataclass(frozen=True)
class Planted:
    """A unit with what makes it fire."""

    inputs: Floats  # (examples, width)
    read: Floats  # (parts, width)
    truth: Truth  # (examples,), −1 for background


@dataclass(frozen=True)
class Score:
    """How a clustering does on a unit whose behaviours are known; examples of the background are not asked about."""

    agreement: float
    """Adjusted Rand index; an example that no cluster takes is a cluster of its own."""
    right_number: bool
    rare_found: bool
    """Whether the last behaviour is one cluster, of its examples and no others."""
    noise: float
    """Share of the behaviours' examples that no cluster takes."""


def score(truth: Truth, labels: NDArray[np.int32]) -> Score:
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
    """A random unit with behaviours of known examples, in random order.

    A feature lies in a twentieth of the coordinates, where the unit reads with its own
    sign, so that it makes the unit fire. Noise is spread over all of them, also where the
    unit hardly reads.
    """
    chance = np.random.default_rng(seed)
    # Read weights of trained models have heavy tails.
    read = chance.normal(size=what.width) * np.exp(0.5 * chance.normal(size=what.width))
    truth = _owners(what, chance)
    unrelated = int((truth < 0).sum())
    features = _features(chance, read, what.behaviours + unrelated + 1)
    shared, features = features[0], features[1:]
    features[: what.behaviours] *= np.sqrt(1 - what.overlap)
    features[: what.behaviours] += np.sqrt(what.overlap) * shared
    owner = truth.copy()
    owner[truth < 0] = what.behaviours + np.arange(unrelated)
    noise = chance.normal(size=(what.examples, what.width)) * what.noise / np.linalg.norm(read)
    inputs = features[owner] + noise
    order = chance.permutation(what.examples)
    return Planted(inputs[order].astype(np.float32), read[None].astype(np.float32), truth[order])


def _features(chance: np.random.Generator, read: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Features whose embeddings, feature ⊙ read, have length one: (count, width)."""
    # Coordinates are dealt out anew when all are taken, so only unrelated examples share any, and by chance.
    dealt = np.concatenate([chance.permutation(len(read)) for _ in range(count // 20 + 1)])
    where = np.zeros((count, len(read)), bool)
    np.put_along_axis(where, dealt[: count * (len(read) // 20)].reshape(count, -1), True, axis=1)
    features = np.where(where, np.abs(chance.normal(size=(count, len(read)))) * np.sign(read), 0.0)
    embedded: NDArray[np.float64] = features / np.linalg.norm(features * read, axis=1, keepdims=True)
    return embedded


def _owners(what: Plant, chance: np.random.Generator) -> Truth:
    unrelated = round(what.background * what.examples)
    known = what.examples - unrelated
    rare = max(1, what.examples // 50) if what.rare else 0
    common = what.behaviours - bool(rare)
    owners = np.arange(known - rare) % common
    return np.concatenate([owners, np.full(rare, what.behaviours - 1), np.full(unrelated, -1)]).astype(np.int64)


@dataclass(frozen=True)
class Joined(Planted):
    """A unit that joins several real ones; what it responds to is known from these."""

    texts: list[str]


def pure_units(collected: Collected, share: float = 0.95, least: int = 30) -> list[tuple[CollectedLayer, int, int]]:
    """Units nearly all of whose examples have one key token: layer, unit and token. What they do is known."""
    contexts, found = collected.contexts, []
    for layer in collected.layers:
        for unit in range(layer.units):
            examples = layer.of_side(unit, 1)[1]
            if len(examples) >= least:
                tokens = contexts.tokens[contexts.starts[examples["context"]] + examples["position"]]
                token, count = np.unique(tokens, return_counts=True)
                if count.max() >= share * len(tokens):
                    found.append((layer, unit, int(token[count.argmax()])))
    return found


def join(
    collected: Collected, members: list[tuple[CollectedLayer, int, int]], examples: int, rare: bool, seed: int
) -> Joined:
    """A unit whose read weights are the sum of its members', each by its largest activation, with examples of each."""
    chance = np.random.default_rng(seed)
    contexts, before, after = collected.contexts, 20, 10
    read, inputs, truth, texts = 0.0, [], [], []
    for number, (layer, unit, _) in enumerate(members):
        read = read + layer.read_weights[:, unit] / layer.moments.maximum[unit]
        own = layer.of_side(unit, 1)[1]
        count = max(2, examples // 50) if rare and number == len(members) - 1 else examples // len(members)
        picked = own[chance.permutation(len(own))[:count]]
        inputs.append(layer.inputs[picked["row"]])
        truth += [number] * len(picked)
        window = window_tokens(contexts.tokens, contexts.starts, picked["context"], picked["position"], before, after)
        texts += [" ".join(collected.token_texts[token] for token in row if token >= 0) for row in window]
    return Joined(np.concatenate(inputs), np.asarray(read, np.float32), np.array(truth), texts)


def groups(
    units: list[tuple[CollectedLayer, int, int]], size: int, count: int
) -> list[list[tuple[CollectedLayer, int, int]]]:
    """Groups of units of one layer that respond to different tokens, drawn at random."""
    chance = np.random.default_rng(size)
    layers: dict[int, list[tuple[CollectedLayer, int, int]]] = {}
    for entry in units:
        layers.setdefault(entry[0].layer, []).append(entry)
    wide = [found for found in layers.values() if len({token for _, _, token in found}) >= size]
    drawn = []
    for _ in range(count):
        found = wide[int(chance.integers(len(wide)))]
        by_token = {found[place][2]: found[place] for place in chance.permutation(len(found))}
        drawn.append(list(by_token.values())[:size])
    return drawn
