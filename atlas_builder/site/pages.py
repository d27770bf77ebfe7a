"""Pages made from records: one method a kind of page, one template each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, TemplateError

from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError
from atlas_builder.records import Record
from atlas_builder.site import figures, text
from atlas_builder.site.cite import cite

COLOURS = 8
"""Behaviours told apart by colour; those after share one."""

BEHAVIOUR_GROUPS = ("one behaviour", "two", "three", "four or more", "none")


@dataclass(frozen=True)
class Neighbourhood:
    """Where a unit stands among the others: page addresses from the site's root."""

    previous: str | None
    next: str | None
    random: str


@dataclass
class Summary:
    """What the overview pages say of a unit."""

    layer: int
    unit: int
    labels: list[str]
    measures: dict[str, Any]
    stats: dict[str, Any]
    coverage: list[float] = field(default_factory=list)
    likeness: float = 0.0
    """Mean cosine of its behaviours' nearest neighbours, 0 where one has none."""

    @property
    def name(self) -> str:
        """`L2/N17`."""
        return f"L{self.layer}/N{self.unit}"

    @property
    def page(self) -> str:
        """Address from the site's root."""
        return unit_page(self.layer, self.unit)


def unit_page(layer: int, unit: int) -> str:
    """`L2/N17.html`."""
    return f"L{layer}/N{unit}.html"


def behaviour_group(behaviours: int) -> int:
    """The place in `BEHAVIOUR_GROUPS` of a unit with so many behaviours."""
    return len(BEHAVIOUR_GROUPS) - 1 if behaviours == 0 else min(behaviours, 4) - 1


class Pages:
    """Renders the pages of one atlas."""

    def __init__(self, jinja: Environment, config: Configuration, facts: dict[str, Any], date: str | None) -> None:
        self.config, self.facts, self.date = config, facts, date
        self._jinja = jinja
        self._common = {"atlas": config.atlas, "atlas_title": config.title, "facts": facts, "date": date}

    def unit(self, record: Record, labels: dict[tuple[str, int], str], around: Neighbourhood) -> str:
        """The page of a unit; `labels` names the behaviours that it links to."""
        layer, unit = record["layer"], record["unit"]
        maximum = record["stats"]["max"]
        shown = [
            text.highlight(example["tokens"], example["values"], example["key"], maximum)
            for example in record["examples"]
        ]
        title = f"{_noun(record['kind']).capitalize()} {unit} of layer {layer}"
        edges, counts = record["stats"]["histogram"].values()
        threshold = self.config.examples.threshold * maximum if self.config.examples.policy == "threshold" else None
        return self._render(
            "unit.html",
            unit_page(layer, unit),
            f"{title}, {self.config.title}",
            unit_title=title,
            noun=_noun(record["kind"]),
            record=record,
            shown=shown,
            noise=[index for index, example in enumerate(record["examples"]) if example["behaviour"] is None],
            rest=max(0.0, 1 - sum(behaviour["coverage"] for behaviour in record["behaviours"])),
            colours=COLOURS,
            lede=_lede(record),
            histogram=figures.histogram(edges, counts, threshold),
            threshold=threshold,
            labels=labels,
            around=around,
        )

    def layer(self, layer: int, units: Sequence[Summary], layers: Sequence[int]) -> str:
        """The table of a layer's units."""
        return self._render(
            "layer.html",
            f"L{layer}/index.html",
            f"Layer {layer}, {self.config.title}",
            layer=layer,
            layers=layers,
            units=units,
            noun=_noun(self.facts["kind"]),
            behaviours=sum(len(unit.labels) for unit in units),
            figure=figures.shares_by_layer([(f"Layer {layer}", "", _groups(units))], BEHAVIOUR_GROUPS),
            groups=BEHAVIOUR_GROUPS,
        )

    def home(
        self, layers: Mapping[int, Sequence[Summary]], starts: Sequence[tuple[str, str, Sequence[Summary]]]
    ) -> str:
        """The first page; `starts` are lists of units worth a first look: title, reason, units."""
        every = [unit for units in layers.values() for unit in units]
        return self._render(
            "home.html",
            "index.html",
            self.config.title,
            layers=layers,
            starts=starts,
            noun=_noun(self.facts["kind"]),
            units=len(every),
            behaviours=sum(len(unit.labels) for unit in every),
            several=sum(len(unit.labels) > 1 for unit in every),
            groups=BEHAVIOUR_GROUPS,
            figure=figures.shares_by_layer(
                [(f"Layer {layer}", f"L{layer}/index.html", _groups(units)) for layer, units in layers.items()],
                BEHAVIOUR_GROUPS,
            ),
        )

    def plain(self, template: str, page: str, title: str) -> str:
        """A page that says the same for every atlas: search, 404."""
        return self._render(template, page, f"{title}, {self.config.title}", heading=title)

    def _render(self, template: str, page: str, title: str, **values: Any) -> str:
        depth = page.count("/")
        key = f"{self.config.atlas.id}-{page.removesuffix('.html')}"
        cited = self.config.title if page == "index.html" else title.rsplit(f", {self.config.title}", 1)[0]
        try:
            return self._jinja.get_template(template).render(
                root="../" * depth,
                title=title,
                citation=cite(self.config, cited, key, page, self.date),
                **self._common,
                **values,
            )
        except TemplateError as error:
            raise ConfigurationError(f"site.theme: {template} cannot be rendered: {error}.") from error


def _noun(kind: str) -> str:
    return {"mlp": "neuron"}.get(kind, "unit")


def _lede(record: Record) -> str:
    count = record["polysemanticity"]["behaviours"]
    if not record["polysemanticity"]["examples"]:
        return "never fires on this corpus"
    if count == 0:
        return "has no behaviour that its examples share"
    return "does one thing" if count == 1 else f"does {_COUNT.get(count, count)} different things"


_COUNT = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}


def _groups(units: Sequence[Summary]) -> list[int]:
    counts = [0] * len(BEHAVIOUR_GROUPS)
    for unit in units:
        counts[behaviour_group(len(unit.labels))] += 1
    return counts
