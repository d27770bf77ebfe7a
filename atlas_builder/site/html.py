"""Tokens as readers see them: text that is shown as text and never runs.

Corpora hold anything. What could change how a page is parsed or laid out (markup, control
characters, bidi overrides, line separators) is escaped or spelt out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from atlas_builder.corpus.characters import begins_character
from atlas_builder.corpus.token_text import HIDDEN, join_tokens, plain, spelt
from atlas_builder.records.measures import Measure
from atlas_builder.rounding import number, percent

LEVELS = 9
_FAINTEST = 0.1  # share of the unit's maximum below which a token is left unmarked
_BLANKS = re.compile("  +")  # a browser shows many as one, and code has many
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def markup(text: str) -> Markup:
    """Text as the content of an element: escaped, with what cannot be seen spelt out quietly.

    Quotes stay as they are, so it is not for attributes.
    """
    return Markup(_content(text))


# A vocabulary's worth: the same tokens stand on every page.
@lru_cache(maxsize=1 << 17)
def _content(text: str) -> str:
    escaped = text.translate(_ESCAPES)
    return HIDDEN.sub(lambda match: f"<u>{spelt(match.group())}</u>", escaped)


@lru_cache(maxsize=1 << 17)
def token(text: str) -> Markup:
    """A token that stands alone: its leading and trailing spaces show."""
    core = text.strip(" ")
    if not core:
        return Markup(_spaces(max(1, len(text))))
    head, tail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return Markup(_spaces(head) + _content(core) + _spaces(tail))


def _spaces(count: int) -> str:
    return f"<u>{'␣' * count}</u>" if count else ""


def highlight(
    tokens: Sequence[str],
    values: Sequence[float | None],
    key: int,
    maximum: float,
    importance: Sequence[float | None] = (),
    *,
    titles: bool = True,
    marks_next: bool = False,
) -> Markup:
    """An example as running text: the key token marked, others highlighted by their share of `maximum`.

    For negative activations that is the minimum, and negative tokens are highlighted. With
    the `importance` of the first tokens, these can be highlighted by it instead; tokens that
    lower the activation stay plain. `titles` show a token's activation under the pointer;
    without them, neighbours of one level share an element. `marks_next` marks the token
    after the key token, where it begins a character. Tokens without an activation, a chat
    template's own, are quiet.

    Only active or important tokens get an element, which keeps a page of two dozen
    examples small. Tokens that are parts of one character share an element with the whole
    character, at the level of the strongest; if one of them is the key token, a title says which.
    """
    which = ""
    if not (text := "".join(tokens)).isascii() or "<0x" in text:
        tokens, values, key, importance, which = _by_character(tokens, values, key, importance, maximum)
    quiet = [] if None not in values else [place for place, value in enumerate(values) if value is None]
    levels = _levels(values, maximum, key)
    weights = _levels(importance, 1.0, key) if importance else {}
    # Most examples have nothing to escape, which one look at the whole text says.
    is_plain = text.isascii() and text.isprintable() and not ("&" in text or "<" in text or ">" in text)
    out = list(tokens if is_plain else map(_content, tokens))
    # The key token's activation stands beside the example, in full.
    shade = _shade(levels.pop(key), weights.pop(key, 0))
    out[key] = f"<mark class={shade}{which}>{out[key]}</mark>"
    places = levels.keys() | weights.keys() if weights else levels
    if titles:
        for place in places:
            level = levels.get(place, 0)
            out[place] = f"{_opening(level, weights.get(place, 0), values[place] if level else None)}{out[place]}</i>"
    else:
        _highlight_runs(
            out,
            {place: _shade(levels.get(place, 0), weights.get(place, 0)) for place in places},
            key + 1 if marks_next else -2,
        )
    if marks_next and not which and key + 1 < len(out):
        out[key + 1] = f"<b>{out[key + 1]}</b>"
    for place in quiet:
        out[place] = f"{'' if place - 1 in quiet else '<small>'}{out[place]}{'' if place + 1 in quiet else '</small>'}"
    line = "".join(out)
    return Markup(_BLANKS.sub(" ", line) if "  " in line else line)


def _highlight_runs(out: list[str], shades: Mapping[int, str], alone: int) -> None:
    """Give tokens at the places of `shades` an element, neighbours of one shade the same; `alone` has its own."""
    for place, shade in shades.items():
        if place == alone or place - 1 == alone or shades.get(place - 1) != shade:
            out[place] = f"<i class={shade}>{out[place]}"
        if place == alone or place + 1 == alone or shades.get(place + 1) != shade:
            out[place] += "</i>"


def example(shown: Markup, value: float, source: str, position: int, *, weighed: bool, role: str = "") -> Markup:
    """An example in a list, its last element left open: the key token's activation, its source and role, the text.

    In Python rather than in a template: a page has a dozen, and an atlas half a million.
    """
    kind = " class=weighed" if weighed else ""
    cited = f"<cite>{_content(plain(f'{role} · {source}' if role else source))} @{position}</cite>"
    return Markup(f"<b>{number(value)}</b>{cited}<p{kind}>{shown}")


def codes(pairs: Sequence[tuple[str, float]], *, shares: bool = False) -> Markup:
    """Single tokens side by side, with their `shares` on demand."""
    parts = [
        f"<code>{token(text)}</code>" + (f" {_content(percent(share))}" if shares else "") for text, share in pairs
    ]
    return Markup((", " if shares else " ").join(parts))


def rows(pairs: Sequence[tuple[str, float]], scale: float = 1) -> Markup:
    """Tokens with a number each, multiplied by `scale`, as rows of a table."""
    return Markup("".join(f"<tr><td>{token(text)}<td>{number(scale * value, 2)}" for text, value in pairs))


def measured(value: Any, measure: Measure) -> str:
    """A measure's value as pages show it."""
    if measure.values == "count":
        return str(value)
    return percent(value) if in_per_cent(measure) else number(value, measure.digits)


def address_from(page: str, folder: str) -> str:
    """The address of a page, given from the site's root, on one in this folder of the root."""
    place, _, name = page.partition("/")
    return name if place == folder else f"../{page}"


def in_per_cent(measure: Measure) -> bool:
    """Whether a measure is shown in whole per cent: a share without a number of digits."""
    return measure.values == "share" and not measure.digits


def _by_character(
    tokens: Sequence[str], values: Sequence[float | None], key: int, importance: Sequence[float | None], maximum: float
) -> tuple[list[str], list[float | None], int, list[float | None], str]:
    """Text, values, key and importance of whole characters, or of tokens of several.

    The last is the title of the key token's, empty where it is no part of a character.
    """
    first = [place for place, begins in enumerate(begins_character(tokens)) if begins or not place]
    groups = list(zip(first, [*first[1:], len(tokens)], strict=True))
    home = next(place for place, (_, end) in enumerate(groups) if key < end)
    begin, end = groups[home]
    which = f' title="token {key - begin + 1} of {end - begin} of this character"' if end - begin > 1 else ""
    weights = [
        max((weight for weight in importance[low:high] if weight is not None), default=None)
        for low, high in groups
        if low < len(importance)
    ]
    strongest = [
        values[low]
        if high - low == 1
        else max(
            (value for value in values[low:high] if value is not None), key=lambda one: one * maximum, default=None
        )
        for low, high in groups
    ]
    return [join_tokens(tokens[low:high]) for low, high in groups], strongest, home, weights, which


def _levels(values: Sequence[float | None], maximum: float, key: int) -> dict[int, int]:
    """The level of highlighting by place, of those values that have one; the key token has at least 1."""
    scale, faintest = LEVELS / maximum if maximum else 0.0, _FAINTEST * LEVELS
    levels = {
        place: round(share) if share < LEVELS else LEVELS
        for place, value in enumerate(values)
        if value and (share := value * scale) >= faintest
    }
    levels[key] = levels.get(key, 1)
    return levels


def _shade(level: int, weight: int) -> str:
    """The classes of a token, at least one of whose levels is not 0."""
    return f'"a{level} w{weight}"' if level and weight else f"a{level}" if level else f"w{weight}"


# Activations of three digits and nine levels: the same come again and again.
@lru_cache(maxsize=1 << 14)
def _opening(level: int, weight: int, value: float | None) -> str:
    """The tag before a token that is not the key token, with its activation as a title if it is given."""
    return f"<i class={_shade(level, weight)}{'' if value is None else f' title={value:.2g}'}>"
