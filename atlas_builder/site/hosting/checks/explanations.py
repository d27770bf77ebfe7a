"""The published explanations: the file by itself, and each against the record of what it explains."""

from __future__ import annotations

from collections.abc import Iterator

from atlas_builder.errors import AtlasError
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import PUBLISHED, ByBehaviour, digest_of, parse_lines, published_lines
from atlas_builder.records.schema import Record
from atlas_builder.site.hosting.checks.published import PublishedSite


def explanation_problems(site: PublishedSite) -> list[str]:
    """What is wrong with `explanations.jsonl` as a whole."""
    if site.said is None:
        return [f"{PUBLISHED}: the settings name no explanations"] if (site.folder / PUBLISHED).exists() else []
    try:
        content = site.said.read_bytes()
        found = parse_lines(content.decode("utf-8"), PUBLISHED).explanations
    except (OSError, ValueError, AtlasError) as error:
        return [f"{PUBLISHED}: cannot be read ({str(error).splitlines()[0][:200]})"]
    problems = []
    if published_lines(found) != content:
        problems.append(f"{PUBLISHED}: it is not written as the builder writes it")
    units, atlas = set(site.units), site.config.atlas.id
    if any((one.layer, one.unit) not in units or one.id != _id(atlas, one.layer, one.unit) for one in found):
        problems.append(f"{PUBLISHED}: it explains a unit that the atlas does not have")
    if any(one.behaviour is not None and (one.id, one.behaviour) not in site.labels for one in found):
        problems.append(f"{PUBLISHED}: it explains a behaviour that the atlas does not have")
    return problems


def edition_problems(explanations: ByBehaviour, record: Record) -> Iterator[str]:
    """Explanations of a unit that are of another edition without saying so, or the reverse, or of no behaviour."""
    numbers = {one["id"] for one in record["behaviours"]}
    for behaviour in (None, *sorted(numbers)):
        for one in explanations.get((record["id"], behaviour), ()):
            if one.current != (one.does == digest_of(record, behaviour)):
                yield f"{PUBLISHED}: the edition that an explanation of {record['id']} is of is not what it says"


def _id(atlas: str, layer: int, unit: int) -> str:
    return UnitAddress(layer, unit).within(atlas)
