"""A small figure of lines in a row of panels, as SVG that reads on light and dark."""

from __future__ import annotations

from dataclasses import dataclass

_WIDTH, _HEIGHT, _LEFT, _TOP = 230, 170, 42, 30
_LOOKS = (("#0a7d92", ""), ("#c0560a", "6 3"), ("#8a56b0", "2 3"), ("#7d7a74", "8 3 2 3"))


@dataclass(frozen=True)
class Panel:
    """Lines over one quantity: name to points, the second coordinate from 0 to 1."""

    axis: str
    drawn: dict[str, list[tuple[float, float]]]


def lines(panels: list[Panel], label: str = "adjusted Rand index") -> str:
    """The figure; colour and dashes distinguish its lines."""
    step = _WIDTH + _LEFT + 18
    parts = [_panel(panel, number * step + _LEFT, label if not number else "") for number, panel in enumerate(panels)]
    below = _TOP + _HEIGHT + 62
    place = _LEFT
    for name, (colour, dashes) in zip(panels[0].drawn, _LOOKS, strict=True):
        parts.append(f'<path d="M{place} {below - 4}h26" stroke="{colour}" stroke-dasharray="{dashes}"/>')
        parts.append(f'<text x="{place + 32}" y="{below}">{name}</text>')
        place += 60 + 7 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {step * len(panels)} {below + 14}" role="img">\n'
        "<title>Adjusted Rand index by " + ", ".join(panel.axis for panel in panels) + "</title>\n"
        "<style>text{font:12px system-ui,sans-serif;fill:#65615a}path{fill:none;stroke-width:2}"
        ".axis{stroke:#8d8982;stroke-width:1}@media(prefers-color-scheme:dark){text{fill:#a39d92}}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(panel: Panel, left: int, label: str) -> str:
    every = [at for points in panel.drawn.values() for at, _ in points]
    low, high = min(every), max(every)

    def x(at: float) -> float:
        return round(left + (at - low) / (high - low) * _WIDTH, 1)

    def y(value: float) -> float:
        return round(_TOP + (1 - value) * _HEIGHT, 1)

    floor = _TOP + _HEIGHT
    parts = [f'<path class="axis" d="M{left} {_TOP}V{floor}H{left + _WIDTH}"/>']
    parts += [
        f'<text x="{left - 8}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    parts += [f'<text x="{x(at)}" y="{floor + 18}" text-anchor="middle">{at:g}</text>' for at in sorted(set(every))]
    parts.append(f'<text x="{left + _WIDTH / 2}" y="{floor + 36}" text-anchor="middle">{panel.axis}</text>')
    if label:
        parts.append(f'<text x="{left - 30}" y="{_TOP - 14}">{label}</text>')
    for (_, points), (colour, dashes) in zip(panel.drawn.items(), _LOOKS, strict=True):
        path = "L".join(f"{x(at)} {y(value)}" for at, value in points)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-dasharray="{dashes}"/>')
    return "\n".join(parts)
