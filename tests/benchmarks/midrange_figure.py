"""The figure of mid-range curation: what breaks the confound by logit, and worst-group accuracy by way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

_LEFT, _RIGHT, _TOP, _LOW, _ROW = 300, 660, 66, 150, 30
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d1c1a}.quiet{font-size:12px;fill:#65615a}"
    ".card{fill:#fbfaf7;stroke:#d5d0c5}.grid{fill:none;stroke:#d5d0c5}.line{fill:none;stroke-width:2}"
    ".c0{stroke:#0a7d92;fill:#0a7d92}.c1{stroke:#c0560a;fill:#c0560a}.c2{stroke:#8a56b0;fill:#8a56b0}"
    ".line.c0,.line.c1,.line.c2{fill:none}.c1.line{stroke-dasharray:6 3}.c2.line{stroke-dasharray:2 3}"
    "@media(prefers-color-scheme:dark){text{fill:#ece8df}.quiet{fill:#b3ada1}.card{fill:#1f1e1b;stroke:#4a4740}"
    ".grid{stroke:#4a4740}.c0{stroke:#4fb6c9;fill:#4fb6c9}.c1{stroke:#ec8a45;fill:#ec8a45}"
    ".c2{stroke:#bd93de;fill:#bd93de}}"
)
_MARKERS = ("M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-4-4h8v8h-8z", "M0-5l5 9h-10z")
"""Circle, square, triangle: data sets are distinguished without colour."""


def figure(breaks: Mapping[str, Sequence[float]], worst: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """SVG on a card of its own, for light and dark.

    `breaks`: by data set, the share that breaks the confound in each part of the logit's range, lowest first.
    `worst`: by way and data set, the worst-group accuracy with each seed.
    """
    middle = _TOP + _LOW + 66
    height = middle + _ROW * len(worst) + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_RIGHT + 30} {height}" role="img">',
        "<title>Samples that break the confound by tenths of the own logit, and worst-group accuracy by way</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{_RIGHT + 29}" height="{height - 1}" rx="6"/>',
        *_legend(list(breaks)),
        *_shares(breaks),
        *_accuracies(worst, middle),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(names: Sequence[str]) -> list[str]:
    return [
        f'<path class="c{place}" transform="translate({_LEFT + 4 + 120 * place} 24)" d="{_MARKERS[place]}"/>'
        f'<text x="{_LEFT + 16 + 120 * place}" y="28">{name}</text>'
        for place, name in enumerate(names)
    ]


def _across(share: float) -> float:
    return round(_LEFT + share * (_RIGHT - _LEFT), 1)


def _shares(breaks: Mapping[str, Sequence[float]]) -> list[str]:
    """The upper panel: lines by part of the logit's range."""
    highest = np.ceil(10 * max(max(shares) for shares in breaks.values())) / 10
    floor = _TOP + _LOW
    parts = [f'<text x="16" y="{_TOP + 4}">break the confound</text>']
    parts.append(f'<text class="quiet" x="16" y="{_TOP + 22}">share of held-out samples</text>')
    for tick in np.linspace(0, highest, 3):
        y = round(floor - tick / highest * _LOW, 1)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_RIGHT}"/>')
        parts.append(f'<text class="quiet" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{100 * tick:.0f} %</text>')
    for place, shares in enumerate(breaks.values()):
        at = [(_across((n + 0.5) / len(shares)), round(floor - s / highest * _LOW, 1)) for n, s in enumerate(shares)]
        parts.append(f'<path class="line c{place}" d="M{"L".join(f"{x} {y}" for x, y in at)}"/>')
        parts += [f'<path class="c{place}" transform="translate({x} {y})" d="{_MARKERS[place]}"/>' for x, y in at]
    count = len(next(iter(breaks.values())))
    parts += [
        f'<text class="quiet" x="{_across((n + 0.5) / count)}" y="{floor + 18}" text-anchor="middle">{n + 1}</text>'
        for n in range(count)
    ]
    middle = _across(0.5)
    parts.append(
        f'<text class="quiet" x="{middle}" y="{floor + 36}" text-anchor="middle">'
        "tenth of the logit of a sample’s own class, lowest first</text>"
    )
    return parts


def _accuracies(worst: Mapping[str, Mapping[str, Sequence[float]]], top: int) -> list[str]:
    """The lower panel: means over seeds as marks, a standard deviation to each side."""
    floor = top + _ROW * len(worst)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{_across(tick)} {top}V{floor}"/>')
        parts.append(
            f'<text class="quiet" x="{_across(tick)}" y="{floor + 18}" text-anchor="middle">{100 * tick:.0f} %</text>'
        )
    parts.append(
        f'<text class="quiet" x="{_across(0.5)}" y="{floor + 36}" text-anchor="middle">'
        "accuracy in the worst group: mean ± standard deviation</text>"
    )
    for row, (way, by_data) in enumerate(worst.items()):
        y = top + row * _ROW + _ROW // 2
        parts.append(f'<text x="16" y="{y + 4}">{way}</text>')
        for place, values in enumerate(by_data.values()):
            if not values:
                continue
            mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            low, high = _across(max(0.0, mean - deviation)), _across(min(1.0, mean + deviation))
            at = y + 8 * (place - 1)
            parts.append(f'<path class="c{place}" d="M{low} {at}H{high}"/>')
            mark = f'transform="translate({_across(mean)} {at}) scale(.8)" d="{_MARKERS[place]}"'
            parts.append(f'<path class="c{place}" {mark}/>')
    return parts
