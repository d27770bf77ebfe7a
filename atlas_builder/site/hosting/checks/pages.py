"""Pages of units: each is rendered again from its record, and must be the same but for what only a model tells.

That is the principal coordinates, of which the number and colours of the dots are compared, the share of
variance on them, and the threshold of examples, which must fit the unit's maximum.
"""

from __future__ import annotations

import html
import re

import numpy as np

from atlas_builder.collect.results import Selection
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import Record
from atlas_builder.rounding import number, percent
from atlas_builder.site.headline import measures_by_sign
from atlas_builder.site.hosting.checks.published import PublishedSite
from atlas_builder.site.unit_side import PlanePoints

_CLOSE = 2e-3
_PLANE = re.compile(r"<svg class=plane [^>]*>.*?</svg>")
_DOTS = re.compile(r'<path class=\w+ d="((?:m-?\d+ ?-?\d+z)+)"/>')
_AT = re.compile(r'( d="(?:m-?\d+ ?-?\d+z)+"|(?<=<text) x=-?\d+ y=-?\d+(?=>))')
_SPREAD = re.compile(r"<figcaption>(Negative activations: )?examples by principal coordinates, ([^<]*) of variance<")
_THRESHOLD = re.compile(r" Examples are above the threshold of ([\d.e−+]+) \(line\)\.")
_RULE = re.compile(r'(?<=<path class=rule d="M)(\d+)(?=-92v80"/>)')
_AROUND = 24  # characters shown before a difference


def page_problem(site: PublishedSite, record: Record, page: str) -> str | None:
    """The first problem of a unit's page, given its record, which is known to be sound; None where all is well."""
    spreads = {-1 if negative else 1: said for negative, said in _SPREAD.findall(page)}
    signs = measures_by_sign(record) if site.config.site.planes else ()
    planes = {sign: _plane(record, sign, spreads.get(sign)) for sign in signs}
    said = _THRESHOLD.search(page)
    threshold = _number(said[1]) if said else None
    if problem := _threshold_problem(site, record, threshold):
        return problem
    share = _share(site)
    # So that the threshold is the one that the page names.
    selection = Selection(threshold / share, 0, filled=False) if threshold and share else Selection(0.0, 0, filled=True)
    place = site.place(UnitAddress(record["layer"], record["unit"]))
    expected = site.pages.unit(
        record, planes, site.labels, site.around(place), selection, explanations=site.explanations
    )
    if page == expected:
        return None
    masked = _masked(expected), _masked(page)
    if masked[0] != masked[1]:
        return difference(*masked)
    return _line_problem(expected, page)


def difference(expected: str, page: str) -> str:
    """What two texts show where they begin to differ."""
    first = next(
        (place for place, (one, other) in enumerate(zip(expected, page, strict=False)) if one != other),
        min(len(expected), len(page)),
    )
    start = max(0, first - _AROUND)
    shown = (text[start : first + _AROUND] for text in (page, expected))
    return "it shows {!r} where its record gives {!r}".format(*shown)


def _masked(page: str) -> str:
    """A page without what only a model tells."""
    return _RULE.sub("", _PLANE.sub(lambda plane: _AT.sub("", plane[0]), page))


def _line_problem(expected: str, page: str) -> str | None:
    """Whether the line of the threshold is elsewhere, by more than the threshold is rounded."""
    lines = [_RULE.search(text) for text in (expected, page)]
    if lines[0] and lines[1] and abs(int(lines[0][1]) - int(lines[1][1])) > 1:
        return "the line of its threshold is not where the threshold is"
    planes = _PLANE.findall(page)
    for plane, drawn in zip(_PLANE.findall(expected), planes, strict=True):
        for own, dots in zip(_DOTS.findall(plane), _DOTS.findall(drawn), strict=True):
            if not own or dots.count("m") < 1:
                return "its plane lacks a behaviour"
    return None


def _plane(record: Record, sign: int, spread: str | None) -> PlanePoints:
    """Points of a side as many as it has examples, all in one place; without a figure where the page has none."""
    side = measures_by_sign(record)[sign]
    own = [behaviour for behaviour in record["behaviours"] if behaviour["sign"] == sign]
    sizes = [behaviour["size"] for behaviour in own]
    labels = np.repeat([0, *(behaviour["id"] for behaviour in own)], [side["examples"] - sum(sizes), *sizes])
    share = float("nan") if spread is None else _percent(spread)
    return np.zeros((len(labels), 2), np.float32), labels.astype(np.int32), share


def _percent(text: str) -> float:
    """A share that is written so, or another from 0 to 1."""
    text, known = html.unescape(text), {"<1%": 0.003, ">99%": 0.997}
    share = known.get(text) or (int(text[:-1]) / 100 if re.fullmatch(r"\d{1,3}%", text) else 0.5)
    return share if share <= 1 and percent(share) == text else 0.5


def _number(text: str) -> float | None:
    try:
        value = float(text.replace("−", "-"))
    except ValueError:
        return None
    return value if number(value) == text else None


def _share(site: PublishedSite) -> float:
    examples = site.config.examples
    return {"threshold": examples.threshold, "robust": examples.share, "top": 0.0}[examples.policy]


def _threshold_problem(site: PublishedSite, record: Record, threshold: float | None) -> str | None:
    """Whether a unit's threshold is one that its maximum allows, and its examples reach it."""
    if threshold is None:
        return None
    highest = _share(site) * record["stats"]["max"]
    slack = _CLOSE * abs(threshold) + 5e-3 * abs(threshold)
    if threshold > highest + slack or (site.config.examples.policy == "threshold" and threshold < highest - slack):
        return f"its threshold of {number(threshold)} is not one for a maximum of {number(record['stats']['max'])}"
    in_bands = {place for band in record["bands"] for place in band["examples"]}
    for place, example in enumerate(record["examples"]):
        value = example["values"][example["key"]]
        if place not in in_bands and 0 <= value < threshold - slack - 0.01 * record["stats"]["max"]:
            return f"its threshold of {number(threshold)} is above the activation of an example, {number(value)}"
    return None
