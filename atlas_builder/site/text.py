"""Tokens as a reader sees them: text that reads as text, and runs nowhere.

Corpora hold anything. What could change how a page is parsed or laid out (markup, control
characters, bidi overrides, line separators) is escaped or spelt out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from atlas_builder.tokens import join_bytes

LEVELS = 9
_FAINTEST = 0.1  # share of the unit's maximum below which a token is left unmarked
_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF))
_HIDDEN = re.compile(
    # Controls, soft hyphen, zero-width and bidi characters, separators, surrogates, noncharacters.
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufdd0-\ufdef\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff"
    f"{_NONCHARACTERS}]"
)


def plain(text: str) -> str:
    """Text for titles and attributes: nothing invisible, one line, not escaped."""
    return _HIDDEN.sub(lambda match: _spell(match.group()), text)


def markup(text: str) -> Markup:
    """Text as HTML: escaped, with what cannot be seen spelt out quietly."""
    out: list[str] = []
    last = 0
    for match in _HIDDEN.finditer(text):
        out += [str(escape(text[last : match.start()])), f"<small>{_spell(match.group())}</small>"]
        last = match.end()
    return Markup("".join([*out, str(escape(text[last:]))]))


def token(text: str) -> Markup:
    """A token that stands alone: its leading and trailing spaces show."""
    core = text.strip(" ")
    if not core:
        return Markup("<small>" + "␣" * max(1, len(text)) + "</small>")
    head, tail = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    return (
        Markup("<small>{}</small>").format("␣" * head) * bool(head)
        + markup(core)
        + (Markup("<small>{}</small>").format("␣" * tail) * bool(tail))
    )


def highlight(
    tokens: Sequence[str],
    values: Sequence[float],
    key: int,
    maximum: float,
    importance: Sequence[float | None] = (),
) -> Markup:
    """An example as running text: the key token marked, others tinted by their share of `maximum`.

    Below zero that is the minimum, and what is negative is tinted. With the `importance`
    of the first tokens, these can be tinted by it instead; what holds the unit back stays
    plain.

    Only active or important tokens get an element, which keeps a page of two dozen
    examples small.
    """
    out: list[str] = []
    quiet: list[str] = []
    for place, (text, value) in enumerate(zip(tokens, values, strict=True)):
        level = _level(value / maximum if maximum else 0.0, place == key)
        weight = _level(importance[place] or 0.0 if place < len(importance) else 0.0, place == key)
        if not (level or (weight and importance)):
            quiet.append(text)
            continue
        if quiet:
            out.append(markup(join_bytes("".join(quiet))))
            quiet.clear()
        tag = "mark" if place == key else "i"
        shade = f'"a{level} w{weight}"' if importance else f"a{level}"
        out.append(f"<{tag} class={shade} title={value:g}>{markup(text)}</{tag}>")
    if quiet:
        out.append(markup(join_bytes("".join(quiet))))
    return Markup("".join(out))


def _level(share: float, is_key: bool) -> int:
    """How strong a tint is, 0 for none; the key token always has one."""
    if share < _FAINTEST and not is_key:
        return 0
    return min(LEVELS, max(1, round(share * LEVELS)))


def _spell(character: str) -> str:
    return _SIGNS.get(character) or f"U+{ord(character):04X}"
