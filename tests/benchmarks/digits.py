"""Draws the figure of the page on the library, and says how far behaviours are digits.

`python -m tests.benchmarks.digits` runs the example that stands on the page, and variants of it.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOCS = Path(__file__).parent.parent.parent / "site_config" / "guide"
PAGE = DOCS / "library.md"
FIGURE = DOCS / "images" / "digits.svg"

CENTRED = "(pixels - pixels.mean(axis=0)) / 16"
METHOD = 'ClusterSettings(method="agglomerative")'
"""What stands on the page where variants have something else."""

Images = NDArray[np.int64]

_PIXEL, _ROW, _COLUMN, _LEFT, _MARGIN = 6, 98, 118, 84, 16
_GREYS = 16


def code(language: str = "python") -> str:
    """The page's last block in a language: `python` for the example, `text` for what it prints."""
    *_, block = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def example(changes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The example's names after a silent run, some of its text replaced."""
    text = code()
    for old, new in (changes or {}).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(text, names)
    return names


def main_share(groups: Iterable[Images], digits: Images) -> float:
    """Share of images that show the most common digit of their group."""
    groups = list(groups)
    return sum(int(np.bincount(digits[group]).max()) for group in groups) / sum(map(len, groups))


def shares(names: dict[str, Any]) -> tuple[float, float, float]:
    """The main digit's share by units, by behaviours, and by behaviours were digits dealt out at random in a unit."""
    digits, units = names["digits"], list(names["behaviours"].values())
    chance = np.random.default_rng(0)
    dealt = [main_share(_dealt(units, chance), digits) for _ in range(100)]
    behaviours = [part for parts in units for part in parts]
    return main_share(map(np.concatenate, units), digits), main_share(behaviours, digits), float(np.mean(dealt))


def _dealt(units: list[list[Images]], chance: np.random.Generator) -> list[Images]:
    """Behaviours of the same sizes, with each unit's images dealt out at random."""
    groups = []
    for parts in units:
        mixed = chance.permutation(np.concatenate(parts))
        groups += np.split(mixed, np.cumsum([len(part) for part in parts])[:-1])
    return groups


def doubles(names: dict[str, Any]) -> int:
    """How many units have two behaviours with the same main digit."""
    mains = [[np.bincount(names["digits"][part]).argmax() for part in parts] for parts in names["behaviours"].values()]
    return sum(len(set(main)) < len(main) for main in mains)


def figure(names: dict[str, Any]) -> str:
    """The units of more than one behaviour as rows, each behaviour as its mean image: SVG on a card of its own."""
    units = {unit: parts for unit, parts in names["behaviours"].items() if len(parts) > 1}
    width = _LEFT + _COLUMN * max(map(len, units.values())) + _MARGIN
    height = _ROW * len(units) + 2 * _MARGIN - 8
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<style>text{font:13px system-ui,sans-serif;fill:#1d1c1a}.size{font-size:12px;fill:#65615a}"
        "path{fill:#1d1c1a;shape-rendering:crispEdges}.sheet{fill:#fff}</style>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="6" fill="#fbfaf7" stroke="#d5d0c5"/>',
    ]
    for row, (unit, parts) in enumerate(units.items()):
        top = _MARGIN + row * _ROW
        drawn.append(f'<text x="{_MARGIN}" y="{top + 28}">unit {unit}</text>')
        for column, part in enumerate(parts):
            mean = names["pixels"][part].mean(axis=0).reshape(8, 8) / 16
            drawn.append(_behaviour(mean, names["main_digits"](part), len(part), _LEFT + column * _COLUMN, top))
    return "\n".join([*drawn, "</svg>"]) + "\n"


def _behaviour(mean: NDArray[np.float64], digits: str, size: int, left: int, top: int) -> str:
    below = 8 * _PIXEL + 14
    return (
        f'<g transform="translate({left} {top})">'
        f'<rect class="sheet" width="{8 * _PIXEL}" height="{8 * _PIXEL}"/>{_squares(mean)}'
        f'<text y="{below}">{digits}</text><text class="size" y="{below + 14}">{size} images</text></g>'
    )


def _squares(mean: NDArray[np.float64]) -> str:
    """One path for each grey, in squares of one pixel: far shorter than a rectangle for each."""
    greys = np.rint(mean * _GREYS).astype(int)
    paths = []
    for grey in range(1, _GREYS + 1):
        squares = "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(greys == grey))
        if squares:
            paths.append(f'<path transform="scale({_PIXEL})" opacity="{grey / _GREYS:.2f}" d="{squares}"/>')
    return "".join(paths)


def main() -> None:
    """Draw the figure; print what share of images shows the main digit, as on the page and otherwise."""
    names = example()
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(figure(names), encoding="utf-8")
    variants: dict[str, dict[str, str]] = {"as on the page": {}}
    variants |= {f"cut at {cut}": {METHOD: METHOD.replace(")", f", cut={cut})")} for cut in (0.3, 0.4, 0.5, 0.6)}
    variants["not centred"] = {CENTRED: "pixels / 16"}
    variants["each pixel scaled"] = {CENTRED: "(pixels - pixels.mean(axis=0)) / np.maximum(pixels.std(axis=0), 1e-9)"}
    variants |= {f"trained from seed {seed}": {"random_state=0": f"random_state={seed}"} for seed in (1, 2, 3)}
    print(f"{'main digit’s share':24} units  behaviours  dealt at random  number of behaviours  units with doubles")
    for name, changes in variants.items():
        found = example(changes)
        unit, behaviour, dealt = shares(found)
        number = sum(map(len, found["behaviours"].values()))
        print(f"{name:24} {unit:5.0%} {behaviour:11.0%} {dealt:16.0%} {number:21} {doubles(found):19}")


if __name__ == "__main__":
    main()
