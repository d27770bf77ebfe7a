"""Constants that the builder shares with the pages' scripts, written for these as `assets/constants.js`."""

from __future__ import annotations

from typing import Any

import orjson

from atlas_builder.corpus import token_text
from atlas_builder.site import map as site_map
from atlas_builder.site.citing import cite
from atlas_builder.site.search import normalise, postings, snippets


def script() -> bytes:
    """A script that defines these constants as `Atlas.constants`."""
    return b"(window.Atlas ??= {}).constants = " + orjson.dumps(constants(), option=orjson.OPT_INDENT_2) + b";\n"


def constants() -> dict[str, Any]:
    """Names as scripts use them; expressions are sources for JavaScript's `RegExp`."""
    return {
        "hidden": _spelled(token_text.HIDDEN.pattern),
        "signs": token_text.SIGNS,
        "wordEnds": normalise.ENDS.pattern,
        "piece": normalise.PIECE.pattern,
        "tex": cite.TEX,
        "ligature": cite.LIGATURES.pattern,
        "digits": postings.DIGITS,
        "offsets": snippets.OFFSETS,
        "middleOffset": snippets.MIDDLE,
        "mapSteps": site_map.STEPS,
    }


def _spelled(characters: str) -> str:
    """A class of characters in ASCII; JavaScript reads its escapes under the flag `u`."""
    return "".join(sign if sign.isascii() and sign.isprintable() else f"\\u{{{ord(sign):x}}}" for sign in characters)
