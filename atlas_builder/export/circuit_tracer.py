"""Features as circuit-tracer's frontend reads them, from the records of units.

The fields are those of `frontend/feature_models.py` of circuit-tracer (https://github.com/safety-research/circuit-tracer).
Its sections are named by quantiles there; here each behaviour is one, then each band of the activation range.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from math import isqrt
from typing import Any, NamedTuple

from atlas_builder.corpus.token_text import HIDDEN, plain, spelt
from atlas_builder.errors import SiteError
from atlas_builder.export.distribution import Distribution
from atlas_builder.reader.band import Band
from atlas_builder.reader.unit import Behaviour, Example, Unit
from atlas_builder.rounding import number, percent, significant

Feature = dict[str, Any]
_SIGNS = {"\n": "⏎", "\t": "→", "\r": "↵"}
"""As the frontend writes them in prompts; of its examples, a line break would break the line."""
_BYTE = re.compile(r"<0x([89A-F][0-9A-F])>")
_LITERAL = re.compile(r"\\(x[0-9a-f]{2})")
_UNCLUSTERED, _NONE = "unclustered examples", "no examples: never active in this text"


class LayerUnit(NamedTuple):
    """A layer and a number in it, of a feature in a graph."""

    layer: int
    unit: int


def cantor_pair(layer: int, unit: int) -> int:
    """The number of a feature in graphs and names of files: (l + i)(l + i + 1) / 2 + i."""
    return (layer + unit) * (layer + unit + 1) // 2 + unit


def cantor_unpair(feature: int) -> LayerUnit:
    """Layer and unit of a feature's number, from 0."""
    diagonal = (isqrt(8 * feature + 1) - 1) // 2
    unit = feature - diagonal * (diagonal + 1) // 2
    return LayerUnit(diagonal - unit, unit)


def feature_of(unit: Unit, scan: str, examples: int | None = None) -> Feature:
    """The feature of a unit, all of plain data.

    One without examples has a section that says so: of a feature that is left out, the frontend would go on
    showing the examples of another.

    Args:
        unit: From an open atlas.
        scan: The name of the features; `transcoder_id` is `<scan>/L<layer>`, `index` the number of the unit.
        examples: Most examples of a section; all by default.

    Raises:
        SiteError: Where the record is damaged.
    """
    try:
        stats = unit.stats
        edges, counts = stats.histogram.edges, stats.histogram.counts
        low = stats.min if stats.min is not None else edges[0] if edges else 0.0
        spread = Distribution(edges, counts, low, stats.max)
        return {
            "transcoder_id": f"{scan}/L{unit.layer}",
            "index": unit.number,
            "examples_quantiles": [
                {"quantile_name": name, "examples": [_example(one) for one in islice(shown, examples)]}
                for name, shown in _sections(unit)
            ],
            "top_logits": [token_shown(token.text) for token in unit.logits.positive],
            "bottom_logits": [token_shown(token.text) for token in unit.logits.negative],
            "act_min": low,
            "act_max": stats.max,
            "quantile_values": [significant(value) for value in spread.percentiles()],
            "histogram": spread.bars(),
            "activation_frequency": stats.density,
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, SiteError):
        raise damaged(unit) from None


def damaged(unit: Unit) -> SiteError:
    """The error that a record is not what a build wrote."""
    return SiteError(
        f"The record L{unit.layer}/N{unit.number}.json is damaged: run atlas-builder check, then build or fetch the "
        "atlas again."
    )


# A vocabulary's worth: the same tokens come again and again.
@lru_cache(maxsize=1 << 17)
def token_shown(text: str) -> str:
    r"""A token as the frontend shows it: visible, and bytes of an incomplete character as `\xe2`.

    What reads as such a byte in the text itself has its backslash as a byte, `\x5cxe2`, so that
    the frontend, which joins bytes to characters, shows the text.
    """
    if text.isascii() and text.isprintable() and "\\" not in text and "<0x" not in text:
        return text
    escaped = _BYTE.sub(lambda byte: f"\\x{byte[1].lower()}", _LITERAL.sub(r"\\x5c\1", text))
    return HIDDEN.sub(lambda found: _SIGNS.get(found.group()) or spelt(found.group()), escaped)


def _sections(unit: Unit) -> Iterator[tuple[str, Iterable[Example]]]:
    """Names and examples of sections: behaviours, bands, behaviours of negative activations, unclustered examples."""
    behaviours = list(unit.behaviours)
    yield from ((_named(one), one.examples) for one in behaviours if one.sign > 0)
    yield from ((_band_name(band), band.examples) for band in unit.bands if band.record["examples"])
    yield from ((f"negative activations: {_named(one)}", one.examples) for one in behaviours if one.sign < 0)
    records = (*unit.record["behaviours"], *unit.record["bands"])
    listed = {place for record in records for place in record["examples"]}
    if rest := [one for one in unit.examples if one.place not in listed]:
        yield _UNCLUSTERED, rest
    if not unit.examples:
        yield _NONE, ()


def _named(behaviour: Behaviour) -> str:
    return f"{plain(behaviour.label)} · {percent(behaviour.coverage)}"


def _band_name(band: Band) -> str:
    (low, high), (least, most) = band.quantiles, band.range
    quantiles = f"below quantile {high:g}" if low is None else f"quantiles {low:g} to {high:g}"
    side = {"own": " where its token comes next", "others": " elsewhere"}.get(band.side or "", "")
    return f"activations {number(least, 4)} to {number(most, 4)}{side} · {quantiles}"


def _example(example: Example) -> dict[str, Any]:
    tokens, values = example.tokens, example.values
    if len(tokens) != len(values) or not 0 <= example.key < len(tokens):
        raise SiteError("an example is damaged")
    return {
        "tokens_acts_list": values,
        "train_token_ind": example.key,
        "is_repeated_datapoint": False,
        "tokens": [token_shown(token) for token in tokens],
    }
