"""Explanations that a build publishes: those of its units and behaviours, each compared with what it was said of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from atlas_builder.errors import ConfigurationError
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import PUBLISHED, Explanation, digest_of, published_lines, read_lines
from atlas_builder.records.record import LayerRecords
from atlas_builder.site.context import Site


def with_explanations(site: Site, folder: Path, progress: Progress) -> Site:
    """The site with the explanations that its settings name, which are written into its folder; without any, as it is.

    Says what was left out. Raises `ConfigurationError` for those of another edition, where
    `site.stale_explanations` refuses them.
    """
    settings = site.config.site
    if settings.explanations is None:
        return site
    given, notes = read_lines(settings.explanations)
    found = list(_matched(site, given))
    stale = sum(not one.current for one in found)
    if stale and settings.stale_explanations == "refuse":
        raise ConfigurationError(
            f"site.explanations: {stale:,} of {len(found):,} {_is(stale)} of another edition of this atlas: explain it "
            "again with atlas-builder explain, or set site.stale_explanations to show."
        )
    for note in notes:
        progress.say(note)
    if lost := len(given) - len(found):
        progress.say(
            f"site.explanations: {lost:,} of {len(given):,} {_is(lost)} of units or behaviours that this atlas does "
            f"not have, and {_is(lost)} left out"
        )
    if stale:
        progress.say(
            f"site.explanations: {stale:,} of {len(found):,} {_is(stale)} of another edition, and {_is(stale)} shown "
            "as such"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PUBLISHED).write_bytes(published_lines(found))
    return replace(site, said=folder / PUBLISHED)


def _matched(site: Site, explanations: Sequence[Explanation]) -> Iterator[Explanation]:
    """Those of units and behaviours that there are, in their order, marked where they are of another edition."""
    atlas = site.config.atlas.id
    by_layer: dict[int, dict[int, list[Explanation]]] = {}
    for one in explanations:
        if one.id == UnitAddress(one.layer, one.unit).within(atlas):
            by_layer.setdefault(one.layer, {}).setdefault(one.unit, []).append(one)
    for layer in site.stages.collected.layers:
        if units := by_layer.get(layer.layer):
            records = LayerRecords(site.stages, layer, site.config)
            for unit in sorted(number for number in units if number < layer.units):
                record = records.outline(unit)
                for one in units[unit]:
                    try:
                        yield replace(one, current=one.does == digest_of(record, one.behaviour))
                    except KeyError:
                        continue


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
