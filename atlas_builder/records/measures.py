"""Every measure of a unit: its name, meaning, number format, and where it is shown.

One table, `MEASURES`, defines the measures for the schema of records, the table of a layer with
its filters, the unit's page, the comparison and the columns of Parquet.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Place = Literal["activation", "unit", "negative", "layer", "comparison"]
"""Where a measure is shown: two lists on a unit's page, that of its negative activations, tables, comparisons."""
Values = Literal["count", "share", "distance", "cosine", "number", "effective"]
"""The kind of number, and so its range."""

_POLYSEMANTICITY = ("polysemanticity",)
_ALL: tuple[Place, ...] = ("unit", "negative", "layer", "comparison")


class Measure(NamedTuple):
    """A measure of a unit."""

    name: str
    """Its column in `tables/units.parquet`."""
    path: tuple[str, ...]
    """Its field in a record."""
    title: str
    """Its name on pages."""
    description: str
    """Half a sentence for headings, the schema, and the metadata of a column."""
    values: Values
    shown: tuple[Place, ...] = ()
    digits: int = 3
    """Significant digits on pages; counts are written in full, shares with 0 digits as whole per cent."""
    filter: str = ""
    """Its name in a layer's filter, if not `name`."""
    former: str = ""
    """Its name in filters until version 0.5; still understood."""

    @property
    def word(self) -> str:
        """Its name in a layer's filter."""
        return self.filter or self.name

    def of(self, record: dict[str, Any]) -> Any:
        """Its value in a record; None where the record has none."""
        value: Any = record
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def _of_clusters(name: str, title: str, description: str, values: Values, *shown: Place, **more: Any) -> Measure:
    return Measure(name, (*_POLYSEMANTICITY, name), title, description, values, shown, **more)


MEASURES = (
    _of_clusters(
        "behaviours", "Behaviours", "number of clusters of examples", "count", "unit", "negative", "layer",
        former="number",
    ),
    _of_clusters(
        "main_behaviours", "Main behaviours", "number of those that hold at least one example in twenty", "count",
        *_ALL, filter="main",
    ),
    _of_clusters("main_low", "Main behaviours, lower end", "of its 90 % interval, from half-samples", "number"),
    _of_clusters("main_high", "Main behaviours, upper end", "of its 90 % interval", "number"),
    _of_clusters("main_half", "Main behaviours in half of the examples", "mean over half-samples", "number"),
    _of_clusters(
        "effective_behaviours", "Effective number", "exp of the entropy of the behaviours’ sizes; 1 is one thing",
        "effective", "unit", "negative", "layer", filter="effective",
    ),
    _of_clusters("effective_low", "Effective number, lower end", "of its 95 % interval, corrected for bias", "number"),
    _of_clusters("effective_high", "Effective number, upper end", "of its 95 % interval", "number"),
    _of_clusters(
        "standard_behaviours", "Effective number at 50 % coverage",
        "in samples of examples that cover half of what it responds to, so that numbers of examples do not matter",
        "number", *_ALL, filter="standard",
    ),
    _of_clusters(
        "standard_low", "Effective number at equal coverage, lower end", "of its 90 % interval, from half-samples",
        "number",
    ),
    _of_clusters(
        "standard_high", "Effective number at equal coverage, upper end", "of its 90 % interval", "number"
    ),
    _of_clusters(
        "sample_coverage", "Sample coverage", "estimated share of what it responds to that its behaviours cover",
        "share", "unit", "negative", digits=0, filter="coverage",
    ),
    _of_clusters(
        "richness", "Richness, at least", "Chao1: behaviours of any size, those that no example shows included",
        "number", "unit", "negative",
    ),
    _of_clusters("richness_low", "Richness, lower end", "of its 95 % interval", "number"),
    _of_clusters("richness_high", "Richness, upper end", "of its 95 % interval", "number"),
    _of_clusters(
        "noise_fraction", "Unclustered", "share of examples in no behaviour", "share", "unit", "layer", digits=0,
        filter="unclustered", former="none",
    ),
    _of_clusters(
        "stability", "Stability", "mean best Jaccard index of behaviours with clusters of half of the examples",
        "share", "unit", "layer", "comparison", digits=2,
    ),
    _of_clusters(
        "mono_score", "MonoScore", "mean cosine of pairs of examples, weighted by activation; 1 is one thing",
        "cosine", "unit", "layer", "comparison", digits=2, former="mono",
    ),
    _of_clusters(
        "mean_distance", "Mean distance", "mean 1 − cosine of all pairs of examples; 0 is one thing", "distance", *_ALL,
        filter="distance",
    ),
    _of_clusters("max_distance", "Largest distance", "of a pair of examples", "distance", "unit"),
    _of_clusters(
        "intra_distance", "Within-cluster distance", "mean over pairs of one behaviour, pooled", "distance",
        "unit", "negative",
    ),
    _of_clusters(
        "inter_distance", "Between-cluster distance", "mean over pairs of two behaviours, pooled", "distance",
        "unit", "negative",
    ),
    Measure(
        "lookup_f1", ("prediction", "lookup", "f1"), "Token F1",
        "of predicting on held-out text where it fires, from the key tokens of examples", "share",
        ("unit", "layer", "comparison"), digits=2, filter="token_f1", former="told",
    ),
    Measure(
        "context_f1", ("prediction", "context", "f1"), "Context F1",
        "of predicting the same from the key tokens with the context that they need", "share",
        ("unit", "comparison"), digits=2,
    ),
    Measure(
        "graph_f1", ("prediction", "graph", "f1"), "Graph F1",
        "of predicting the same by the longest match in the graphs of its behaviours (Neuron to Graph)", "share",
        ("unit", "comparison"), digits=2,
    ),
    Measure(
        "associations", ("associations", "named"), "Associations",
        "number of tokens and fields that come with its middle or its top more often, beyond chance", "count",
        ("layer",),
    ),
    Measure(
        "max", ("stats", "max"), "Maximum", "largest activation", "number", ("activation", "layer"),
    ),
    Measure("min", ("stats", "min"), "Minimum", "smallest activation", "number", ("activation",)),
    Measure("mean", ("stats", "mean"), "Mean", "mean activation", "number", ("activation",)),
    Measure("std", ("stats", "std"), "Standard deviation", "of the activation", "number", ("activation",)),
    Measure(
        "density", ("stats", "density"), "Density", "share of tokens with an activation above zero", "share",
        ("activation", "layer", "comparison"), digits=0, former="active",
    ),
    _of_clusters("examples", "Examples", "number of examples that the measures rest on", "count", "layer"),
    _of_clusters(
        "qualifying_contexts", "Qualifying contexts",
        "number of contexts near enough to the maximum for an example; estimated from examples.per_unit on", "count",
        "unit", "negative", filter="contexts",
    ),
    Measure(
        "importance_share", ("direction", "share"), "Importance", "share of the importance of its layer’s directions",
        "share", ("layer",), digits=0, filter="importance",
    ),
    Measure(
        "direction_stability", ("direction", "stability"), "Direction’s stability",
        "correlation of the directions that the two halves of the text have in its place", "share",
        ("layer", "comparison"), digits=2, filter="direction",
    ),
)  # fmt: skip
"""In the order of the lists on pages."""

OF_CLUSTERS = tuple(measure for measure in MEASURES if measure.path[:1] == _POLYSEMANTICITY)
"""The measures of a unit's clusters."""


def shown_in(place: Place) -> list[Measure]:
    """The measures shown in a place, in order."""
    return [measure for measure in MEASURES if place in measure.shown]
