"""Figures as inline SVG: no script, colours from the page, a text for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape


def histogram(edges: Sequence[float], counts: Sequence[int], threshold: float | None = None) -> Markup:
    """Tokens by activation, counts on a logarithmic axis; `threshold` draws a line."""
    width, height, base = 320, 96, 84
    if not counts:
        return Markup("")
    low, high = edges[0], edges[-1]
    span = (high - low) or 1.0
    top = math.log10(max(counts) + 1)

    def x(value: float) -> float:
        return round((value - low) / span * width, 1)

    bars = []
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            tall = round(math.log10(count + 1) / top * (base - 6), 1)
            bars.append(f"M{x(left)} {base}v-{tall}H{max(x(left) + 0.5, x(right) - 0.6):.1f}V{base}z")
    ticks = [(low, "start"), (high, "end")]
    if low < 0 < high and 0.12 < -low / span < 0.88:
        ticks.insert(1, (0.0, "middle"))
    labels = "".join(
        f'<text x="{x(value)}" y="{height}" text-anchor="{anchor}">{f"{value:.3g}".replace("-", "−")}</text>'
        for value, anchor in ticks
    )
    line = ""
    if threshold is not None and low < threshold < high:
        line = f'<path class="rule" d="M{x(threshold)} 4V{base}"/>'
    total = sum(counts)
    summary = escape(
        f"Histogram of {total:,} tokens by activation, from {low:.3g} to {high:.3g}; counts are logarithmic."
    )
    return Markup(
        f'<svg class="histogram" viewBox="0 0 {width} {height + 4}" role="img" aria-label="{summary}">'
        f'<path class="bars" d="{"".join(bars)}"/><path class="axis" d="M0 {base}.5H{width}"/>{line}{labels}</svg>'
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
