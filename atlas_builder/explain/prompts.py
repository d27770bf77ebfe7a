"""The prompts for explaining, simulating and recognising, and the parsing of answers.

Activations are whole numbers from 0 to 10, 10 the unit's highest (Bills et al. 2023). Answers
are parsed from the text itself, not from token probabilities, which not every server returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atlas_builder.explain.excerpts import Excerpt

LEVELS = 10
_LONGEST = 20_000  # characters of an answer that are read

_EXPLAIN = """\
We study one neuron of a language model. Below are excerpts of text, a token on each line as a JSON string,
then how active the neuron is on it, from 0 to {levels}.

{excerpts}

What do the tokens have in common on which the neuron is active? Answer with one short sentence of at most
25 words and nothing else."""

_SIMULATE = """\
A neuron of a language model is said to do this: {explanation}

Below is text, a numbered token on each line as a JSON string. An empty line begins another excerpt.

{tokens}

On which tokens is the neuron active, and how active, from 1 to {levels}? Answer with one line for each such
token, its number, a colon and its activation, like 17: 4, and nothing else. Where it is active on none, answer:
none"""

_DETECT = """\
A neuron of a language model is said to do this: {explanation}

Below are numbered excerpts of text, each as a JSON string. On some of them the neuron is active.

{texts}

Which excerpts fit what the neuron is said to do? Answer with their numbers, with commas between, like 2, 5, and
nothing else. If none does, answer: none"""

_FUZZ = """\
A neuron of a language model is said to do this: {explanation}

Below are numbered excerpts of text, each as a JSON string, with some tokens between << and >>. In some of the
excerpts these are the tokens that the neuron is active on, in the others they are not.

{texts}

In which excerpts do the marked tokens fit what the neuron is said to do? Answer with their numbers, with commas
between, like 2, 5, and nothing else. If there is no such excerpt, answer: none"""

_NUMBERS = re.compile(r"(?<![\d.])\d{1,4}(?![\d]|\.\d)")
_WORDS = re.compile(
    r"[\d\s,;:.*#()\[\]&-]|\b(?:and|the|answer|answers|excerpt|excerpts|number|numbers|match|matches|matching|fit|fits|"
    r"are|is)\b",
    re.IGNORECASE,
)
# Each begins within its line, so that thousands of empty lines are read once.
_YES_OR_NO = re.compile(r"^[^\w\n]*(?:excerpt )?(\d{1,4})\W+(yes|no)\b.*$", re.MULTILINE | re.IGNORECASE)

_ANSWER = re.compile(
    r"^[^\w\n]*(?:token )?(\d{1,6})\**\s{0,9}[:\t=]\s{0,9}\**(\d{1,3}(?:\.\d+)?)(?![\d.]*\d)",
    re.MULTILINE | re.IGNORECASE,
)
_NONE = re.compile(r"\W*(?:answer\W+)?none\W*", re.IGNORECASE)


def levels(values: NDArray[np.float32], maximum: float) -> NDArray[np.int64]:
    """Activations as whole numbers from 0 to `LEVELS`."""
    rounded: NDArray[np.int64] = np.clip(np.rint(values / maximum * LEVELS), 0, LEVELS).astype(np.int64)
    return rounded


def explaining(excerpts: Sequence[Excerpt], maximum: float) -> str:
    """The prompt for an explanation."""
    parts = [
        "\n".join(
            f"{_quoted(token)} {level}" for token, level in zip(tokens, levels(values, maximum).tolist(), strict=True)
        )
        for tokens, values in excerpts
    ]
    return _EXPLAIN.format(levels=LEVELS, excerpts="\n\n".join(parts))


def simulating(explanation: str, excerpts: Sequence[Sequence[str]]) -> str:
    """The prompt to simulate a unit from its explanation."""
    lines, number = [], 0
    for tokens in excerpts:
        if number:
            lines.append("")
        for token in tokens:
            number += 1
            lines.append(f"{number}: {_quoted(token)}")
    return _SIMULATE.format(levels=LEVELS, explanation=_quoted(explanation), tokens="\n".join(lines))


def simulated(answer: str, tokens: int) -> NDArray[np.float64] | None:
    """The activations that an answer gives for so many tokens, (tokens,); None if it is unreadable.

    Numbers out of range are ignored, and activations are clipped to `LEVELS`.
    """
    answer = answer[: max(_LONGEST, 20 * tokens)]
    pairs = [(int(number), float(value)) for number, value in _ANSWER.findall(answer)]
    if not pairs and not _NONE.fullmatch(answer):
        return None
    activations = np.zeros(tokens)
    for number, value in pairs:
        if 1 <= number <= tokens:
            activations[number - 1] = min(value, LEVELS)
    return activations


def detecting(explanation: str, texts: Sequence[str]) -> str:
    """The prompt to say which texts fit an explanation."""
    return _DETECT.format(explanation=_quoted(explanation), texts=_numbered(texts))


def fuzzing(explanation: str, texts: Sequence[str]) -> str:
    """The prompt to say in which texts the marked tokens fit an explanation."""
    return _FUZZ.format(explanation=_quoted(explanation), texts=_numbered(texts))


def _numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"{number}: {_quoted(text)}" for number, text in enumerate(texts, 1))


def chosen_numbers(answer: str, number: int) -> set[int] | None:
    """The numbers that an answer names, of 1 to `number`; None if it is unreadable.

    Lines like `3: yes` are understood too. Numbers out of range are ignored, unless there are no others.
    """
    answer = answer[:_LONGEST]
    said = [(int(place), word.lower() == "yes") for place, word in _YES_OR_NO.findall(answer)]
    if said:
        return {place for place, yes in said if yes and 1 <= place <= number}
    if _NONE.fullmatch(answer):
        return set()
    if _WORDS.sub("", answer).strip("\"'`"):
        return None
    return {int(place) for place in _NUMBERS.findall(answer) if 1 <= int(place) <= number} or None


def _quoted(text: str) -> str:
    """Text quoted as one line that cannot be taken for a part of the prompt and always encodes."""
    quoted = json.dumps(text, ensure_ascii=False).encode(errors="replace").decode()
    return re.sub("[\x85\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", quoted)
