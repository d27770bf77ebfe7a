"""Images with a planted confound: drawn shapes by their place, handwritten digits by a patch in a corner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Images = NDArray[np.float32]
Numbers = NDArray[np.int64]

SIDE = 24
KINDS = ("square", "ellipse", "triangle")
_MARGIN = 5.5
"""Nearest that a shape's centre comes to the border, in pixels."""
_NOISE = 0.1
"""Standard deviation of the noise on drawn shapes, whose ink is 1."""


@dataclass(frozen=True)
class Split:
    """Images (n, height, width), the class of each and its attribute; class c goes with attribute c."""

    images: Images
    labels: Numbers
    attributes: Numbers

    @property
    def breaks(self) -> NDArray[np.bool_]:
        """Where the attribute is not the one that goes with the class."""
        return np.asarray(self.labels != self.attributes)

    @property
    def groups(self) -> Numbers:
        """Class × attribute, as one number."""
        return self.labels * (1 + int(self.attributes.max())) + self.attributes


@dataclass(frozen=True)
class Confounded:
    """Splits of one data set: the confound holds in `bias` of training and held-out data, and says nothing in the test.

    In `unbroken` it holds throughout: other training data, of the same size.
    """

    train: Split
    unbroken: Split
    held_out: Split
    test: Split


def shapes(bias: float, count: int, seed: int) -> Confounded:
    """Squares, ellipses and triangles; a kind goes with a third of the width. `count` images a split."""
    chance = np.random.default_rng([seed, 1])
    even = np.arange(count) % len(KINDS) ** 2  # the same number of each kind at each place
    return Confounded(
        train=_drawn_with(bias, count, chance),
        unbroken=_drawn_with(1.0, count, chance),
        held_out=_drawn_with(bias, count, chance),
        test=_draw(even // len(KINDS), even % len(KINDS), chance),
    )


def _drawn_with(bias: float, count: int, chance: np.random.Generator) -> Split:
    kinds = chance.integers(len(KINDS), size=count)
    return _draw(kinds, _attributes(kinds, len(KINDS), bias, chance), chance)


def _attributes(labels: Numbers, number: int, bias: float, chance: np.random.Generator) -> Numbers:
    """For each label itself in `bias` of the cases, else one of the others."""
    others = (labels + chance.integers(1, number, size=len(labels))) % number
    return np.where(chance.random(len(labels)) < bias, labels, others)


def _draw(kinds: Numbers, places: Numbers, chance: np.random.Generator) -> Split:
    """Shapes of a random size, turn and place within their third, with noise."""
    count = len(kinds)
    width = (SIDE - 2 * _MARGIN) / len(KINDS)
    across = _MARGIN + (places + chance.random(count)) * width
    down = chance.uniform(_MARGIN, SIDE - _MARGIN, count)
    size = chance.uniform(3.5, 5.5, count)[:, None, None]
    turn = chance.uniform(0, 2 * np.pi, count)[:, None, None]
    row, column = np.mgrid[:SIDE, :SIDE]
    x, y = column - across[:, None, None], row - down[:, None, None]
    u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    # Each by how far outside a point is, in pixels; factors make areas alike.
    square = np.maximum(np.abs(u), np.abs(v)) - 0.886 * size
    ellipse = (np.hypot(u / 1.4, v * 1.4) / size - 1) * size
    triangle = np.maximum.reduce([np.cos(a) * u + np.sin(a) * v for a in 2 * np.pi / 3 * np.arange(3)]) - 0.778 * size
    outside = np.choose(kinds[:, None, None], [square, ellipse, triangle])
    ink = np.clip(0.5 - outside, 0, 1) + chance.normal(scale=_NOISE, size=outside.shape)
    return Split(ink.astype(np.float32), kinds, places)


def digits(bias: float, seed: int) -> Confounded:
    """scikit-learn's digits of 8 × 8, even or odd; odd ones have a bright patch in a corner.

    The test has each of its images with and without the patch.
    """
    chance = np.random.default_rng([seed, 2])
    pixels, numbers = load_digits(return_X_y=True)
    images, labels = (pixels / 16).astype(np.float32).reshape(-1, 8, 8), numbers.astype(np.int64) % 2
    train, held_out, test = np.split(chance.permutation(len(images)), [700, 1300])

    def split(chosen: Numbers, share: float) -> Split:
        return _patched(images[chosen], labels[chosen], _attributes(labels[chosen], 2, share, chance))

    twice = np.repeat(test, 2)
    return Confounded(
        train=split(train, bias),
        unbroken=split(train, 1.0),
        held_out=split(held_out, bias),
        test=_patched(images[twice], labels[twice], np.arange(len(twice)) % 2),
    )


def _patched(images: Images, labels: Numbers, attributes: Numbers) -> Split:
    patched = images.copy()
    patched[:, :2, :2] = attributes[:, None, None]
    return Split(patched, labels, attributes)
