"""Examples of chosen units from a part of their range, as lines of JSON to look at, filter or train on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from atlas_builder.config import Configuration
from atlas_builder.config_file import validate
from atlas_builder.curate.draws import LayerDraws, Side
from atlas_builder.curate.lines import Lines
from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.files import check_file, read_json, replacing
from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.stages import Stages
from atlas_builder.workspace import CONFIGURATION, portable_configuration, work_folder

_MIDDLE: dict[Side, tuple[float, float]] = {"own": (0.0, 0.1), "others": (0.0, 0.1), "positive": (0.5, 0.9)}
"""The quantiles of each side's middle, by default."""
_LONGEST_LINE = 1 << 20
_NAMED = 5  # units in a sentence
REPORT = ("unit", "token", "association", "effect", "top", "middle", "below", "p", "url")
"""The columns of a report of associations; `token` and `association` are JSON, so that spaces are seen."""


class CuratedExamples(NamedTuple):
    """What was written."""

    file: Path
    lines: int
    short: list[UnitAddress]
    """Units with fewer examples than were asked for."""


def curate(
    site: Path,
    output: Path | None = None,
    *,
    units: Sequence[str] = (),
    side: Side | None = None,
    quantiles: tuple[float, float] | None = None,
    number: int = 100,
    seed: int = 0,
    report: Path | None = None,
    progress: Progress | None = None,
) -> CuratedExamples:
    """Write examples of units between two quantiles of their range, a line of JSON each.

    They are read from what the build kept beside the site: of output neurons every own position, else the
    positions drawn for associations. The same atlas and choice give the same bytes.

    Args:
        site: The folder of a built atlas.
        output: The file, by default beside the folder; one of another kind is not replaced.
        units: Ids such as `L4/N0`; all by default.
        side: `own` or `others` of output neurons, by default the first, and `positive` of other units.
        quantiles: Of own activations, by default 0 to 0.1, or of positive ones, 0.5 to 0.9.
        number: Most examples of a unit.
        seed: Of the choice among more.
        report: A file of comma-separated values for the units' associations.
        progress: Where to report; quiet by default.

    Raises:
        ConfigurationError: Where the folder has no results of its build beside it, or the choice is none.

    Example:
        >>> from atlas_builder.curate.run import curate
        >>> from pathlib import Path
        >>> curate(Path("output/logits"), units=["L4/N0"], number=20).lines
        20
    """
    progress = progress or Progress(quiet=True)
    atlas = _open(site)
    side = _side(atlas, side)
    low, high = _checked(quantiles or _MIDDLE[side])
    _check_numbers(number, seed)
    chosen = _chosen(atlas, units)
    output = output or site.resolve().with_name(f"{site.resolve().name}.curated.jsonl")
    check_file("--output", output, _is_curated)
    lines = Lines(atlas.config, atlas.stages.collected, side, (low, high), seed)
    if report is not None:
        _check_report(report, output)
        _write_report(atlas, site, chosen, lines, report)
    counts: dict[UnitAddress, int] = {}
    with replacing(output) as file, progress.task("curate", total=len(chosen), unit="units") as advance:
        for draws, address in _by_layer(atlas, chosen):
            found = draws.between(address.unit, side, (low, high))
            order = np.random.default_rng([seed, *address]).permutation(len(found.rows))[:number]
            for line in lines.of(address, found.rows[order], found.quantile[order]):
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            counts[address] = len(order)
            advance(1)
    return CuratedExamples(output, sum(counts.values()), [unit for unit, count in counts.items() if count < number])


class _Atlas(NamedTuple):
    facts: dict[str, Any]
    config: Configuration
    stages: Stages


def _open(site: Path) -> _Atlas:
    facts = read_facts(site)
    work = work_folder(site.resolve())
    again = "run it where the atlas was built, or build it again."
    try:
        config = validate(read_json(work / CONFIGURATION))
        stages = Stages.at(work)
        collected = stages.collected.facts
    except OSError:
        raise ConfigurationError(
            f"{site} has no results of its build beside it ({work.name} is not found): {again}"
        ) from None
    except ValueError:
        raise ConfigurationError(f"the results of the build in {work} are damaged: {again}") from None
    same_text = collected["corpus_sha256"] == facts["corpus"]["sha256"]
    if not same_text or orjson.loads(orjson.dumps(portable_configuration(config))) != facts["configuration"]:
        raise ConfigurationError(f"{work} holds the results of another build than {site}: build the atlas again.")
    return _Atlas(facts, config, stages)


def _side(atlas: _Atlas, side: Side | None) -> Side:
    predicts = atlas.config.units.kind == "logits"
    side = side or ("own" if predicts else "positive")
    if predicts != (side != "positive"):
        kinds = "own or others" if predicts else "positive"
        raise ConfigurationError(f"--side {side}: units of kind {atlas.config.units.kind} have {kinds}: choose that.")
    if side != "own" and not atlas.config.names_associations:
        raise ConfigurationError(
            "this atlas keeps too few positions to curate from: build it again with --set describe.associations=true."
        )
    return side


def _checked(quantiles: tuple[float, float]) -> tuple[float, float]:
    low, high = quantiles
    if not 0 <= low < high <= 1:
        raise ConfigurationError(f"--quantiles {low:g} {high:g}: give two that rise, from 0 to 1, such as 0 0.1.")
    return low, high


def _chosen(atlas: _Atlas, units: Sequence[str]) -> list[UnitAddress]:
    """The addresses of units, each once, in the order of the atlas."""
    counts = {int(layer["layer"]): int(layer["units"]) for layer in atlas.facts["layers"]}
    if not units:
        return [UnitAddress(layer, unit) for layer, count in counts.items() for unit in range(count)]
    chosen = set()
    for name in units:
        parsed = UnitAddress.parse(name.strip())
        if parsed is None or parsed[0] not in (None, atlas.config.atlas.id):
            raise ConfigurationError(
                f"--units {brief(name, 60)} is no id of this atlas: give some such as L{min(counts)}/N0."
            )
        if parsed[1].unit >= counts.get(parsed[1].layer, 0):
            raise ConfigurationError(f"--units {brief(name, 60)}: this atlas has no such unit: choose another.")
        chosen.add(parsed[1])
    return sorted(chosen)


def _check_numbers(number: int, seed: int) -> None:
    if number < 1:
        raise ConfigurationError(f"--number {number}: give at least 1.")
    if not 0 <= seed < 2**63:
        raise ConfigurationError(f"--seed {brief(seed, 40)}: give a whole number from 0 to 2^63 − 1.")


def _is_curated(file: Path) -> bool:
    first = _first_line(file)
    return first.startswith(b'{"') and b'"quantile":' in first


def _is_report(file: Path) -> bool:
    return _first_line(file) == ",".join(REPORT).encode() + b"\n"


def _first_line(file: Path) -> bytes:
    with file.open("rb") as content:
        return content.readline(_LONGEST_LINE)


def _by_layer(atlas: _Atlas, chosen: Sequence[UnitAddress]) -> Iterator[tuple[LayerDraws, UnitAddress]]:
    draws: dict[int, LayerDraws] = {}
    for address in chosen:
        if address.layer not in draws:
            layer = atlas.stages.collected.layer(address.layer)
            draws = {address.layer: LayerDraws(layer, atlas.config.examples.association_draws)}
        yield draws[address.layer], address


def _check_report(report: Path, output: Path) -> None:
    check_file("--report", report, _is_report)
    if report.resolve() == output.resolve():
        raise ConfigurationError(f"--report: {report} is the file of examples: name another.")


def _write_report(atlas: _Atlas, site: Path, chosen: Sequence[UnitAddress], lines: Lines, report: Path) -> None:
    """The associations of the chosen units, as their records have them."""
    if not atlas.config.names_associations:
        raise ConfigurationError(
            "--report: this atlas names no associations: build it again with --set describe.associations=true."
        )
    with replacing(report) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(REPORT)
        for address in chosen:
            named = (read_json(site / address.record).get("associations") or {}).get("found", [])
            for one in named:
                what = one["token"] if "token" in one else {one["field"]: one["value"]}
                numbers = (one[name] for name in ("effect", "top", "middle", "below", "p"))
                token = lines.token(address)
                table.writerow(
                    [address.id, "" if token is None else _json(token), _json(what), *numbers, lines.url(address)]
                )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def said(curated: CuratedExamples, number: int) -> str:
    """What was written, in a sentence."""
    names = ", ".join(address.id for address in curated.short[:_NAMED])
    more = f" and {len(curated.short) - _NAMED} more" if len(curated.short) > _NAMED else ""
    fewer = f"; fewer than {number:,} of {names}{more}" if curated.short else ""
    return f"{curated.lines:,} examples: {curated.file}{fewer}"
