"""Reading a built atlas from its folder or over http, file by file as needed.

import atlas_builder
atlas = atlas_builder.open("output/demo")
for example in atlas[3, 512].behaviours[1].examples:
    print(example)

Everything is addressed by its published number: `atlas[3, 512].behaviours[2]` is shown at
`L3/N512.html#b2`. References in a record (by index or id) are resolved to objects: a
behaviour's examples, a neighbour's unit. Nothing here needs a model.
"""

from atlas_builder.reader.atlas import Atlas, Layer, open
from atlas_builder.reader.band import Band
from atlas_builder.reader.measures import (
    Association,
    Associations,
    Histogram,
    Logits,
    Negative,
    OutputToken,
    PatternGraph,
    PatternNode,
    Polysemanticity,
    Prediction,
    PredictionScores,
    Stats,
    Steering,
    Token,
)
from atlas_builder.reader.neighbour import Neighbour
from atlas_builder.reader.unit import Behaviour, Behaviours, Example, Unit
from atlas_builder.records.explanations import Explanation

__all__ = [
    "Association",
    "Associations",
    "Atlas",
    "Band",
    "Behaviour",
    "Behaviours",
    "Example",
    "Explanation",
    "Histogram",
    "Layer",
    "Logits",
    "Negative",
    "Neighbour",
    "OutputToken",
    "PatternGraph",
    "PatternNode",
    "Polysemanticity",
    "Prediction",
    "PredictionScores",
    "Stats",
    "Steering",
    "Token",
    "Unit",
    "open",
]
