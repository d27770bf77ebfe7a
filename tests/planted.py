"""Units whose behaviours are known, to hold clusterings against: planted in plain arrays, and in a real model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    strangers = int((truth < 0).sum())
    features = _features(chance, read, what.behaviours + strangers + 1)
    shared, features = features[0], features[1:]
    features[: what.behaviours] *= np.sqrt(1 - what.overlap)
    features[: what.behaviours] += np.sqrt(what.overlap) * shared
    owner = truth.copy()
    owner[truth < 0] = what.behaviours + np.arange(strangers)
    noise = chance.normal(size=(what.examples, what.width)) * what.noise / np.linalg.norm(read)
    inputs = features[owner] + noise
    order = chance.permutation(what.examples)
    return Planted(inputs[order].astype(np.float32), read[None].astype(np.float32), truth[order])


def _features(chance: np.random.Generator, read: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Features whose embeddings, feature ⊙ read, have length one: (count, width)."""
    # Coordinates are dealt out anew when all are taken, so only strangers share any, and by chance.
    dealt = np.concatenate([chance.permutation(len(read)) for _ in range(count // 20 + 1)])
    where = np.zeros((count, len(read)), bool)
    np.put_along_axis(where, dealt[: count * (len(read) // 20)].reshape(count, -1), True, axis=1)
    features = np.where(where, np.abs(chance.normal(size=(count, len(read)))) * np.sign(read), 0.0)
    embedded: NDArray[np.float64] = features / np.linalg.norm(features * read, axis=1, keepdims=True)
    return embedded


def _owners(what: Plant, chance: np.random.Generator) -> Truth:
    strangers = round(what.background * what.examples)
    known = what.examples - strangers
    rare = max(1, what.examples // 50) if what.rare else 0
    common = what.behaviours - bool(rare)
    owners = np.arange(known - rare) % common
    return np.concatenate([owners, np.full(rare, what.behaviours - 1), np.full(strangers, -1)]).astype(np.int64)
