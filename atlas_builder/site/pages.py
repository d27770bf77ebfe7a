"""Pages made from records: one method a kind of page, one template each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from jinja2 import TemplateError

from atlas_builder.collect.results import Selection
from atlas_builder.config import Configuration, SiteSettings
from atlas_builder.corpus import token_text
from atlas_builder.errors import ConfigurationError
from atlas_builder.reader.facts import counted_tokens
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.directions import STABLE
from atlas_builder.records.explanations import ByBehaviour
from atlas_builder.records.kinds import BASES, kind_of
from atlas_builder.records.measures import MEASURES, shown_in
from atlas_builder.records.schema import Record
from atlas_builder.site import evidence, figures, graph_figures, html, in_words, layer_table
from atlas_builder.site import map as site_map
from atlas_builder.site.behaviour_graph import graphs_drawn
from atlas_builder.site.citing.cite import Citation, cite
from atlas_builder.site.degeneracy import degeneracy_by_layer, layer_degeneracy, neuron_pages
from atlas_builder.site.graph import WHOLE, Graph
from atlas_builder.site.headline import headline, reliability
from atlas_builder.site.map import DrawnMap
from atlas_builder.site.measured import measured_of
from atlas_builder.site.names import UnitNames
from atlas_builder.site.strips import own_edges_of, strips_of
from atlas_builder.site.summary import Summary, compared_number
from atlas_builder.site.templates import RecordTemplates
from atlas_builder.site.unit_side import COLOURS, ExamplePlaces, PlanePoints, colours_of, shown_examples, sides_of

_NAMED = 4  # behaviours that a preview names
_UNLIKELY = 3  # standard deviations of the cosine of two random directions; one is 1 / √width

_DISTRIBUTIONS = ("stability", "mean_distance", "density")  # drawn on a layer's page after the number of behaviours

_DIVERSITY = ("standard_behaviours", "sample_coverage", "richness")  # null where examples are no random sample
_INTERVALS = {
    "effective_behaviours": (95, "effective_low", "effective_high"),
    "standard_behaviours": (90, "standard_low", "standard_high"),
    "richness": (95, "richness_low", "richness_high"),
}
"""Measures with an interval on a unit's page: its per cent, and the measures that are its ends."""

_OF_ALL_UNITS: dict[str, Any] = {
    "lines": COLOURS,
    "shown_in": shown_in,
    "diversity": _DIVERSITY,
    "intervals": _INTERVALS,
    "stable": STABLE,
}
"""What the pages of all units have in common."""

BEHAVIOUR_GROUPS = ("one main behaviour", "two", "three", "four or more", "none")


@dataclass(frozen=True)
class Neighbourhood:
    """The pages that a unit's page leads to: addresses from the site's root."""

    previous: str | None
    next: str | None
    random: str


def behaviour_group(behaviours: int) -> int:
    """The index in `BEHAVIOUR_GROUPS` of a unit with this many main behaviours."""
    return len(BEHAVIOUR_GROUPS) - 1 if behaviours == 0 else min(behaviours, 4) - 1


class Pages:
    """Renders the pages of one atlas."""

    def __init__(self, jinja: RecordTemplates, config: Configuration, facts: dict[str, Any], date: str | None) -> None:
        self.config, self.facts, self.date = config, facts, date
        self._jinja = jinja
        self.names = UnitNames(facts)
        self._common = {
            "names": self.names,
            "atlas": config.atlas,
            "atlas_title": token_text.plain(config.title),
            "facts": facts,
            "date": date,
        }

    @property
    def _noun(self) -> str:
        """What one of the atlas's units is called."""
        return kind_of(self.facts["kind"]).noun

    @cached_property
    def citation(self) -> Citation:
        """How the atlas as a whole is cited."""
        which = f"Every {self._noun}" if self.names.tokens is None else f"{self._noun.capitalize()}s"
        description = (
            f"{which} of {self.facts['model']['name']}, and the separate things each one responds to, with examples."
        )
        atlas = self.config.atlas
        return cite(self.config, self.config.title, atlas.id, "index.html", self.date, description=description)

    def unit_citation(self, layer: int, unit: int, digest: str, description: str = "") -> Citation:
        """How a unit is cited; `digest` is its record's hash."""
        page = UnitAddress(layer, unit).page
        title = self.names.title(layer, unit)
        return self._cited(page, title, digest=digest, description=description)

    def unit(
        self,
        record: Record,
        planes: Mapping[int, PlanePoints],
        labels: Mapping[tuple[str, int], str],
        around: Neighbourhood,
        selection: Selection,
        site: SiteSettings | None = None,
        *,
        explanations: ByBehaviour | None = None,
    ) -> str:
        """The page of a unit; `planes` are those to be drawn, by sign, `labels` name the behaviours that it links to.

        `selection` is how the examples of positive activations were selected; `site` says how
        much is shown, by default the configuration's settings. `explanations` are what models
        said of its behaviours, among others.
        """
        site = site or self.config.site
        layer, unit = record["layer"], record["unit"]
        title = self.names.title(layer, unit)
        places, colours = ExamplePlaces.of(record), colours_of(record)
        edges, counts = (record["stats"]["histogram"][name] for name in ("edges", "counts"))
        threshold = self._threshold(selection)
        return self._render(
            "unit.html",
            UnitAddress(layer, unit).page,
            f"{title}, {self.config.title}",
            citation=self.unit_citation(layer, unit, record["hash"], _description(record)),
            unit_title=title,
            noun=kind_of(record["kind"]).noun,
            record=record,
            in_words=in_words.of_unit(record, explanations or {}),
            shown=shown_examples(record, places, titles=site.activation_titles),
            explained=any("importance" in example for example in record["examples"]),
            sides=sides_of(record, places, planes, colours),
            colours=colours,
            graphs=graphs_drawn(record),
            headline=headline(record),
            caution=evidence.caution(record["polysemanticity"], self.config.examples.policy),
            reliability=reliability(record, self.config.examples.policy),
            measured=measured_of(record),
            histogram=figures.histogram(edges, counts, threshold, own_edges_of(record)),
            strips=strips_of(record),
            threshold=threshold,
            labels=labels,
            wired=_UNLIKELY / self.facts["model"]["width"] ** 0.5,
            approximate=self.facts.get("similar_behaviours") == "approximate",
            around=around,
            token=record.get("token"),
            direction=record.get("direction"),
            basis=BASES[self.config.units.basis],
            reads=[(part, figures.shares(_shares_read(part))) for part in record.get("reads", ())],
            counterpart=self._counterpart,
            reach=self.config.examples.window[0],
            attributes="tokens and values of fields" if self._has_fields else "tokens",
            **_OF_ALL_UNITS,
        )

    @property
    def _has_fields(self) -> bool:
        """Whether fields of documents are kept beside their text."""
        return bool(self.config.corpus.attributes)

    def _neuron_pages(self, root: str) -> str | None:
        return neuron_pages(self.facts["kind"], self.config.site.counterpart, root)

    @property
    def _counterpart(self) -> str | None:
        """The folder of the atlas of the other units, from a page's own folder of pages of units."""
        place = self.config.site.counterpart
        if place is None:
            return None
        return place.rstrip("/") if "//" in place or place.startswith("/") else f"../{place.rstrip('/')}"

    def scarcity(self, units: Sequence[Summary]) -> str | None:
        """What to say of a text that shows too little of the atlas's units."""
        return evidence.scarcity(units, counted_tokens(self.facts), self._noun, self.config.examples.policy)

    def _threshold(self, selection: Selection) -> float | None:
        """The activation from which a context can be an example; None where the examples are the highest."""
        examples = self.config.examples
        share = {"threshold": examples.threshold, "robust": examples.share, "top": 0.0}[examples.policy]
        return None if selection.filled else share * selection.robust or None

    def layer(self, layer: int, units: Sequence[Summary], layers: Sequence[int]) -> dict[str, str]:
        """The table of a layer's units, by the names of its pages."""
        leaves = layer_table.leaves(units)
        drawn = (compared_number(units).name, *_DISTRIBUTIONS)
        distributions = [
            (
                measure,
                figures.distribution(
                    [float(value) for unit in units if (value := unit.measures[measure.name]) is not None],
                    partial(html.measured, measure=measure),
                    logarithmic=measure.name == "density",
                ),
            )
            for measure in MEASURES
            if measure.name in drawn
        ]
        return {
            leaf.name: self._render(
                "layer.html",
                f"L{layer}/{leaf.name}",
                f"{self.names.layer(layer)}, {self.config.title}",
                description=f"The {len(units):,} {self.names.of_layer(layer)} and what each one does.",
                layer=layer,
                layers=layers,
                total=len(units),
                leaf=leaf,
                leaves=leaves,
                columns=layer_table.columns(units),
                noun=self._noun,
                said=layer_table.is_said(units),
                behaviours=sum(len(unit.labels) for unit in units),
                figure=figures.shares_by_layer(
                    [(self.names.layer_in_a_figure(layer), "", _groups(units))], BEHAVIOUR_GROUPS
                ),
                figures=distributions,
                groups=BEHAVIOUR_GROUPS,
                degeneracy=layer_degeneracy(self.facts, layer),
                neuron_pages=self._neuron_pages("../"),
            )
            for leaf in leaves
        }

    def home(
        self,
        layers: Mapping[int, Sequence[Summary]],
        starts: Sequence[tuple[str, str, Sequence[Summary]]],
        paper_distances: Mapping[str, float],
        drawn: DrawnMap,
    ) -> str:
        """The first page; `starts` are lists of units worth a first look: title, reason, units.

        `paper_distances` has the medians of `PAPER_DISTANCES` over all units.
        """
        every = [unit for units in layers.values() for unit in units]
        compared = compared_number(every)
        return self._render(
            "home.html",
            "index.html",
            self.config.title,
            layers=layers,
            starts=starts,
            paper_distances=paper_distances,
            reads=kind_of(self.facts["kind"]).reads,
            map=site_map.preview(drawn.picture),
            scarcity=self.scarcity(every),
            noun=self._noun,
            units=len(every),
            behaviours=sum(len(unit.labels) for unit in every),
            several=sum(unit.measures["main_behaviours"] > 1 for unit in every),
            groups=BEHAVIOUR_GROUPS,
            figure=figures.shares_by_layer(
                [
                    (self.names.layer_in_a_figure(layer), f"L{layer}/index.html", _groups(units))
                    for layer, units in layers.items()
                ],
                BEHAVIOUR_GROUPS,
            ),
            boxes=figures.boxes(
                [
                    figures.Row(
                        self.names.layer_in_a_figure(layer),
                        f"L{layer}/index.html",
                        [value for unit in units if (value := unit.measures[compared.name]) is not None],
                    )
                    for layer, units in layers.items()
                ],
                compared.title,
            ),
            compared=compared,
            not_compared=sum(unit.measures[compared.name] is None for unit in every if unit.measures["examples"]),
            degeneracy=degeneracy_by_layer(self.facts),
            neuron_pages=self._neuron_pages(""),
        )

    def map(self, drawn: DrawnMap) -> str:
        """The map of all behaviours."""
        return self._render(
            "map.html",
            "map.html",
            f"Map of behaviours, {self.config.title}",
            description=f"All behaviours of the {self._noun}s of {self.facts['model']['name']} in one "
            "plane, similar ones near each other.",
            noun=self._noun,
            picture=drawn.picture,
            placed=drawn.placed,
            regions=drawn.regions,
        )

    def interaction(self, page: str, graph: Graph) -> str:
        """How directions interact: the page of all layers or, at its address, that of a module."""
        most = self.config.interaction.directions_drawn
        if page != WHOLE:
            module = next(module for module in graph.modules if module.page == page)
            return self._render(
                "module.html",
                page,
                f"Module {module.number}, {self.config.title}",
                description=f"{len(module.members):,} {self._noun}s that interact mostly with each other.",
                module=module,
                picture=graph_figures.module_graph(graph, module, most, "../"),
                most=most,
                noun=self._noun,
            )
        return self._render(
            "interaction.html",
            page,
            f"Interactions, {self.config.title}",
            description=f"How the {self._noun}s of {self.facts['model']['name']} act on those of the next layer.",
            graph=graph,
            picture=graph_figures.model_graph(graph, most),
            pairs=[(pair, graph_figures.pair_graph(graph, pair, most)) for pair in graph.pairs],
            colour_of=graph_figures.colour_of,
            most=most,
            noun=self._noun,
        )

    def plain(self, template: str, page: str, title: str) -> str:
        """A page that is about no unit or layer: search, 404."""
        return self._render(template, page, f"{title}, {self.config.title}", heading=title)

    def _cited(self, page: str, title: str, *, description: str = "", digest: str | None = None) -> Citation:
        key = f"{self.config.atlas.id}-{page.removesuffix('.html')}"
        return cite(self.config, title, key, page, self.date, digest=digest, description=description)

    def _render(
        self,
        template: str,
        page: str,
        title: str,
        *,
        description: str = "",
        citation: Citation | None = None,
        **values: Any,
    ) -> str:
        if citation is None and page == "index.html":
            citation = self.citation
        cited = title.removesuffix(f", {self.config.title}")
        try:
            return self._jinja.page(
                template,
                {
                    "root": "../" * page.count("/"),
                    "title": token_text.plain(title),
                    "citation": citation or self._cited(page, cited, description=description),
                    **self._common,
                    **values,
                },
            )
        except TemplateError as error:
            raise ConfigurationError(f"site.theme: {template} cannot be rendered: {error}.") from error


def _shares_read(part: Record) -> list[tuple[str, float]]:
    """The colour and share of each direction that a part of a neuron reads, and of the rest."""
    shares = [(f"c{place}", share) for place, (_, share) in enumerate(part["directions"], start=1)]
    return [*shares, ("c0", part["rest"])] if part["rest"] else shares


def _description(record: Record) -> str:
    """A unit in a sentence, for previews of links to it."""
    labels = [f"“{token_text.plain(behaviour['label'])}”" for behaviour in record["behaviours"][:_NAMED]]
    more = ", …" if len(record["behaviours"]) > _NAMED else "."
    sentence = f"This {kind_of(record['kind']).noun} {headline(record)}"
    return f"{sentence}: {', '.join(labels)}{more}" if labels else f"{sentence}."


def _groups(units: Sequence[Summary]) -> list[int]:
    counts = [0] * len(BEHAVIOUR_GROUPS)
    for unit in units:
        counts[behaviour_group(unit.measures["main_behaviours"])] += 1
    return counts
