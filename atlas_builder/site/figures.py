"""Figures as inline SVG: no script, colours from the page, a text alternative."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from atlas_builder.cluster.clustering import is_main

_COLUMN = 3  # units of a plane's drawing that a column of dots is wide


def histogram(
    edges: Sequence[float], counts: Sequence[int], threshold: float | None = None, marks: Sequence[float] = ()
) -> Markup:
    """Tokens by activation, counts on a logarithmic axis; `threshold` draws a line, `marks` are ticks on the axis."""
    width, above, tall = 320, 96, 78  # the text's line is at 0, the axis 12 above it
    if not counts:
        return Markup("")
    low, high = edges[0], edges[-1]
    span = (high - low) or 1.0
    top = math.log10(max(counts) + 1)

    def x(value: float) -> int:
        return round((value - low) / span * width)

    outline, at, last, wide = ["M0-12"], 0, 0, 0
    for right, count in zip(edges[1:], counts, strict=True):
        bar = round(math.log10(count + 1) / top * tall)
        if bar != at:
            outline.append(f"h{wide}v{at - bar}" if wide else f"v{at - bar}")
            at, wide = bar, 0
        wide += x(right) - last
        last = x(right)
    outline.append(f"h{wide}V-12z")
    # The first begins at the left edge and the last ends at the right one, as the style sheet has it.
    ticks = [f"<text>{_tick(low, span)}</text>", f"<text x={width}>{_tick(high, span)}</text>"]
    if low < 0 < high and 0.12 < -low / span < 0.88:
        ticks.insert(1, f"<text x={x(0)}>0</text>")
    line = ""
    if threshold is not None and low < threshold < high:
        line = f'<path class=rule d="M{x(threshold)}-92v80"/>'
    if places := dict.fromkeys(x(mark) for mark in marks if low <= mark <= high):
        line += f'<path class=marks d="{"".join(f"M{place}-15v7" for place in places)}"/>'
    total = sum(counts)
    summary = escape(f"Histogram of {total:,} activations from {low:.3g} to {high:.3g}")
    return Markup(
        f'<svg class=histogram viewBox="0 -{above} {width} {above + 4}" role=img aria-label="{summary}">'
        f'<path class=bars d="{"".join(outline)}"/>{line}{"".join(ticks)}</svg>'
    )


def shares_by_layer(rows: Sequence[tuple[str, str, Sequence[int]]], names: Sequence[str]) -> Markup:
    """One stacked bar a layer: `rows` of (name, link, counts), `names` of the parts."""
    width, bar, gap, left = 720, 22, 10, 84
    height = len(rows) * (bar + gap)
    out = []
    for place, (name, link, counts) in enumerate(rows):
        y = place * (bar + gap)
        total = sum(counts) or 1
        out.append(f'<a href="{escape(link)}"><text x="0" y="{y + 16}">{escape(name)}</text></a>')
        start = float(left)
        for part, (count, title) in enumerate(zip(counts, names, strict=True)):
            wide = count / total * (width - left)
            if count:
                label = f"{name}: {count:,} units with {title} ({count / total:.0%})"
                out.append(
                    f'<rect class="s{part}" x="{start:.1f}" y="{y}" width="{max(wide - 1.5, 0.5):.1f}" '
                    f'height="{bar}" rx="3">'
                    f"<title>{escape(label)}</title></rect>"
                )
                if wide > 44:
                    out.append(
                        f'<text class="in s{part}" x="{start + wide / 2:.1f}" y="{y + 15}" text-anchor="middle" '
                        f'aria-hidden="true">{count / total:.0%}</text>'
                    )
            start += wide
    summary = escape(
        "Share of units by number of behaviours, one bar a layer: "
        + "; ".join(
            f"{name} " + ", ".join(f"{count} with {title}" for count, title in zip(counts, names, strict=True))
            for name, _, counts in rows
        )
    )
    return Markup(
        # A group, for a picture may hold no links.
        f'<svg class="shares" viewBox="0 0 {width} {height}" role="group" aria-label="{summary}">{"".join(out)}</svg>'
    )


def _tick(value: float, span: float) -> str:
    """A number under an axis; the edge of the bin that holds zero is zero."""
    return "0" if abs(value) < 1e-3 * span else f"{value:.3g}".replace("-", "−")


def shares(parts: Sequence[tuple[str, float]]) -> Markup:
    """A thin bar of parts, each a class for its colour and its share; what it shows stands beside it as text."""
    total = sum(share for _, share in parts) or 1.0
    start, out = 0.0, []
    for colour, share in parts:
        wide = share / total * 600
        out.append(f'<path class={colour} d="M{start:.0f} 4h{max(wide - 2, 2):.0f}"/>')
        start += wide
    return Markup(f'<svg class=bar viewBox="0 0 600 8" preserveAspectRatio=none aria-hidden=true>{"".join(out)}</svg>')


def plane(points: NDArray[np.float32], labels: NDArray[np.int32], colours: Sequence[str]) -> Markup:
    """A unit's examples by principal coordinates, coloured by behaviour.

    `points` is (examples, 2), `labels` (examples,) the behaviour of each from 1, or 0 for
    unclustered; `colours` are the classes of behaviours 0, 1, 2, … Main behaviours are numbered; of a unit that has
    none, all are.
    """
    width, height, margin = 160, 115, 8
    low, high = np.minimum.reduce(points), np.maximum.reduce(points)  # (2,)
    room = np.array([width - 2 * margin, height - 2 * margin])
    scale = (room / np.maximum(high - low, 1e-6)).min()
    places = np.rint((points - (low + high) / 2) * [scale, -scale] + [width / 2, height / 2]).astype(int)
    # Each behaviour's dots from left to right, up and down by turns: steps are short then.
    across, down = places.T
    columns = across // _COLUMN
    order = np.lexsort((across, np.where(columns % 2, -down, down), columns, labels))
    places = places[order]
    steps = places[1:] - places[:-1]  # (examples - 1, 2)
    sizes = np.bincount(labels, minlength=len(colours))
    main = is_main(sizes, len(labels))
    count = int(np.count_nonzero(sizes[1:]))
    numbered = main if main[1:].any() else sizes > 0
    dots, numbers = [], []
    xs, ys = places.T.tolist()
    steps_x, steps_y = steps.T.tolist()
    last = 0
    for number, size in enumerate(sizes.tolist()):
        if not size:
            continue
        first, last = last, last + size
        # A closed path of no length with a round end is a dot; from the last one it takes five bytes.
        others = slice(first, last - 1)  # the step to a dot stands one before it
        path = [_dot(xs[first], ys[first]), *map(_next_dot, steps_x[others], steps_y[others])]
        dots.append(f'<path class={colours[number]} d="{"".join(path)}"/>')
        if number and numbered[number]:
            x, y = (sorted(line[first:last])[size // 2] for line in (xs, ys))
            numbers.append(f"<text x={x} y={y + 2}>{number}</text>")
    summary = f"{len(points):,} examples in {count} behaviour{'s' if count != 1 else ''}, by principal coordinates."
    return Markup(
        f'<svg class=plane viewBox="0 0 {width} {height}" role=img aria-label="{summary}">'
        f"{''.join(dots)}{''.join(numbers)}</svg>"
    )


def _dot(x: int, y: int) -> str:
    return f"m{x} {y}z" if y >= 0 else f"m{x}{y}z"


# Neighbours are near each other, so the same steps come again and again.
@lru_cache(maxsize=1 << 14)
def _next_dot(x: int, y: int) -> str:
    """A dot so far from the last one; nothing for one in the same place."""
    return _dot(x, y) if x or y else ""


def distribution(values: Sequence[float], show: Callable[[float], str], *, logarithmic: bool = False) -> Markup:
    """The distribution of a measure over units; `show` writes its minimum, median and maximum.

    On a logarithmic axis values of zero are left out.
    """
    width, height, base, bars = 200, 72, 54, 30
    known = np.array([value for value in values if value > 0 or not logarithmic])
    if not len(known):
        return Markup("")
    scaled = np.log10(known) if logarithmic else known
    low, high = float(scaled.min()), float(scaled.max())
    counts = np.histogram(scaled, bins=bars, range=(low, high if high > low else low + 1))[0]
    outline = "".join(
        f"V{base - count / counts.max() * (base - 8):.0f}h{width / bars:.3g}" for count in counts.tolist()
    )
    middle = float(np.median(scaled))
    x = round((middle - low) / ((high - low) or 1) * width)
    minimum, median, maximum = (escape(show(float(of(known)))) for of in (np.min, np.median, np.max))
    summary = f"{len(known):,} units from {minimum} to {maximum}, median {median}"
    anchor = "start" if x < 40 else "end" if x > width - 40 else "middle"
    ends = "" if anchor == "start" else f'<text x="0" y="{height - 4}">{minimum}</text>'
    ends += "" if anchor == "end" else f'<text x="{width}" y="{height - 4}" text-anchor="end">{maximum}</text>'
    return Markup(
        f'<svg class="distribution" viewBox="0 0 {width} {height}" role="img" aria-label="{summary}">'
        f'<path class="bars" d="M0 {base}{outline}V{base}z"/><path class="rule" d="M{x} 2V{base}"/>'
        f'{ends}<text class="middle" x="{x}" y="{height - 4}" text-anchor="{anchor}">{median}</text></svg>'
    )


class Row(NamedTuple):
    """A row of a box figure: a name that is a link, values, and the number of a behaviour's colour or None."""

    name: str
    link: str
    values: Sequence[float]
    colour: int | None = None
    apart: bool = False
    """Whether there is room above it."""


def boxes(rows: Sequence[Row], name: str) -> Markup:
    """Box figure of a measure, one row a layer.

    Whiskers go from the 5th to the 95th percentile, the box from the 25th to the 75th; the mark is the median.
    """
    width, step = 720, 32
    left = max((84, *(8 * len(row.name) for row in rows)))
    quantiles = {row.name: np.quantile(row.values, [0.05, 0.25, 0.5, 0.75, 0.95]) for row in rows if len(row.values)}
    if not quantiles:
        return Markup("")
    ticks = _ticks(min(row[0] for row in quantiles.values()), max(row[4] for row in quantiles.values()))
    low, high = ticks[0], ticks[-1]

    def x(value: float) -> str:
        return f"{left + (value - low) / (high - low) * (width - left - 8):.1f}"

    tops = [place * step + step // 2 * apart for place, apart in enumerate(accumulate(row.apart for row in rows))]
    height = tops[-1] + step
    out = [
        f'<path class="grid" d="M{x(tick)} 0V{height}"/>'
        f'<text x="{x(tick)}" y="{height + 16}" text-anchor="middle">{tick:.3g}</text>'
        for tick in ticks
    ]
    labels = []
    for row, top in zip(rows, tops, strict=True):
        y = top + 11
        out.append(f'<a href="{escape(row.link)}"><text x="0" y="{y + 5}">{escape(row.name)}</text></a>')
        if row.name not in quantiles:
            continue
        low_end, lower, median, upper, high_end = quantiles[row.name]
        label = f"{row.name}: median {median:.2g}, half of the units between {lower:.2g} and {upper:.2g}, "
        label += f"90 % between {low_end:.2g} and {high_end:.2g}"
        labels.append(label)
        out.append(
            f"<g{'' if row.colour is None else f' class=c{row.colour}'}><title>{escape(label)}</title>"
            f'<path class="whisker" d="M{x(low_end)} {y}H{x(high_end)}"/>'
            f'<path class="box" d="M{x(lower)} {y}H{x(upper)}"/>'
            f'<path class="median" d="M{x(median)} {y - 9}v18"/></g>'
        )
    summary = escape(f"{name} by layer. {'; '.join(labels)}")
    return Markup(
        f'<svg class="boxes" viewBox="0 0 {width} {height + 22}" role="group" aria-label="{summary}">'
        f"{''.join(out)}</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """About ten round numbers that enclose the values from `low` to `high`."""
    rough = (high - low or 1.0) / 9
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]
