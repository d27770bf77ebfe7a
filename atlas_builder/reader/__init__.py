"""A built atlas, read: from its folder or over http, a file at a time, when it is looked at.

import atlas_builder
atlas = atlas_builder.open("output/demo")
for example in atlas[3, 512].behaviours[1].examples:
    print(example)

Everything is addressed by the number it is published under: `atlas[3, 512].behaviours[2]`
is what `L3/N512.html#b2` shows. Where a record points (by an index, an id), the thing
itself follows: a behaviour's examples, a neighbour's unit. Nothing here needs a model.
"""

from atlas_builder.reader.atlas import Atlas, Layer, open
from atlas_builder.reader.measures import (
    Histogram,
    Logits,
    Negative,
    Polysemanticity,
    Prediction,
    PredictionScores,
    Stats,
    Steering,
    Token,
)
from atlas_builder.reader.neighbour import Neighbour
from atlas_builder.reader.unit import Band, Behaviour, Behaviours, Example, Unit

__all__ = [
    "Atlas",
    "Band",
    "Behaviour",
    "Behaviours",
    "Example",
    "Histogram",
    "Layer",
    "Logits",
    "Negative",
    "Neighbour",
    "Polysemanticity",
    "Prediction",
    "PredictionScores",
    "Stats",
    "Steering",
    "Token",
    "Unit",
    "open",
]
