"""Trials in which a judge recognises excerpts that fit an explanation (Paulo et al. 2024, arXiv 2410.13928).

- *Detection*: some excerpts are activating, the others not; the judge says which fit the explanation.
- *Fuzzing*: all excerpts are activating, and tokens of each are marked: those that the unit activates on, or, in every
  second excerpt, as many others, on which it does not. The judge says where the marks are right.

Both are scored by balanced accuracy, 0.5 by chance and for a judge that says the same of all. Theirs are asked for a
few excerpts at a time; here all of a trial are in one question.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlas_builder.explain.excerpts import Excerpt
from atlas_builder.explain.plans import QUIET, RECOGNISED

ACTIVE = 0.5
"""The share of an excerpt's highest activation from which its tokens are marked; our choice."""

_SIGNS = ("<", ">")
_DOUBLED = re.compile(r"([<>])(?=\1)")


class Trial(NamedTuple):
    """Texts in the order in which they are asked for, and whether each is right."""

    texts: list[str]
    truth: list[bool]

    @property
    def is_scored(self) -> bool:
        """Whether there are both right and wrong ones."""
        return any(self.truth) and not all(self.truth)


def quiet_excerpts(drawn: Sequence[Excerpt], maximum: float) -> list[Excerpt]:
    """The non-activating ones of excerpts, `RECOGNISED` at most: the first that are quiet, else the quietest."""
    highest = [float(excerpt.values.max(initial=0)) for excerpt in drawn]
    quiet = [place for place, value in enumerate(highest) if value <= QUIET * maximum]
    others = sorted(set(range(len(drawn))) - set(quiet), key=lambda place: (highest[place], place))
    return [drawn[place] for place in [*quiet, *others][:RECOGNISED]]


def detection_trial(active: Sequence[Excerpt], quiet: Sequence[Excerpt], generator: np.random.Generator) -> Trial:
    """A trial of activating and other excerpts, shuffled."""
    texts = ["".join(excerpt.tokens) for excerpt in (*active, *quiet)]
    return _shuffled(texts, [True] * len(active) + [False] * len(quiet), generator)


def fuzzing_trial(active: Sequence[Excerpt], maximum: float, generator: np.random.Generator) -> Trial:
    """A trial of activating excerpts of which every second has its marks elsewhere, shuffled.

    An excerpt in which no token is quiet cannot have wrong marks, and is left out where it would.
    """
    texts, truth = [], []
    for number, (tokens, values) in enumerate(active):
        fires = np.flatnonzero(values >= ACTIVE * values.max(initial=0))
        wrong = number % 2 == 1
        if wrong:
            fires = _elsewhere(values, fires, maximum, generator)
        if len(fires):
            texts.append(marked(tokens, set(fires.tolist())))
            truth.append(not wrong)
    return _shuffled(texts, truth, generator)


def _elsewhere(
    values: NDArray[np.float32], fires: NDArray[np.intp], maximum: float, generator: np.random.Generator
) -> NDArray[np.intp]:
    """As many random tokens that the unit does not activate on, as far as there are so many."""
    return generator.permutation(np.setdiff1d(np.flatnonzero(values <= QUIET * maximum), fires))[: len(fires)]


def marked(tokens: Sequence[str], places: Collection[int]) -> str:
    """The text of tokens, of which some are marked: `<<so>>`, neighbours together.

    Spaces separate such signs in the text itself, from each other and from marks.
    """
    text = ""
    for is_marked, run in groupby(enumerate(tokens), lambda item: item[0] in places):
        plain = _DOUBLED.sub(r"\1 ", "".join(token for _, token in run))
        plain = " " * plain.startswith(_SIGNS) + plain + " " * plain.endswith(_SIGNS)
        text += f"<<{plain}>>" if is_marked else plain
    return text


def balanced_accuracy(truth: Sequence[bool], chosen: Collection[int] | None) -> float | None:
    """The mean of the share of right ones that were chosen and of wrong ones that were not, from 0 to 1.

    `chosen` are places from 1; None if there is no readable answer, or all are right, or none.
    """
    if chosen is None or not any(truth) or all(truth):
        return None
    right = [place in chosen for place, is_right in enumerate(truth, 1) if is_right]
    wrong = [place not in chosen for place, is_right in enumerate(truth, 1) if not is_right]
    return (sum(right) / len(right) + sum(wrong) / len(wrong)) / 2


def _shuffled(texts: Sequence[str], truth: Sequence[bool], generator: np.random.Generator) -> Trial:
    order = generator.permutation(len(texts)).tolist()
    return Trial([texts[place] for place in order], [truth[place] for place in order])
