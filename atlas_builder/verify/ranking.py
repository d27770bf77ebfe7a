"""Published lists of tokens with numbers, compared with the numbers of all tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from atlas_builder.verify.report import VerificationReport, agrees


def check_ranking(
    report: VerificationReport,
    kind: str,
    what: str,
    claimed: Sequence[Sequence[object]],
    weights: NDArray[np.float64],
    texts: Callable[[int], str],
    limit: int,
    tolerance: Callable[[float], float] = lambda weight: 0.0,
) -> None:
    """Compare a list of [text, number] with the first tokens by falling weight, of equal ones the lower id.

    `weights`, (tokens,), are NaN for tokens that are never listed. Two tokens whose weights differ, by less
    than the tolerance of either, may change places.
    """
    known = np.flatnonzero(~np.isnan(weights))
    order = known[np.lexsort([known, -weights[known]])].tolist()
    report.count(kind, max(1, len(claimed)))
    if len(claimed) != min(limit, len(order)):
        report.wrong(f"{what} lists {len(claimed)} tokens, but {min(limit, len(order))} were found")
        return
    left = order[: 4 * limit + 16]
    for place, (text, number) in enumerate(claimed):
        expected = order[place]
        weight = float(weights[expected])
        slack = tolerance(weight)
        token = next((token for token in left if texts(token) == text and _near(weights, token, expected, slack)), None)
        if token is None or not agrees(float(str(number)), float(weights[token]), slack):
            report.wrong(
                f"{what}: number {place + 1} is published as {text!r} with {number}, "
                f"but computed as {texts(expected)!r} with {weight:.4g}"
            )
            return
        left.remove(token)


def _near(weights: NDArray[np.float64], token: int, expected: int, slack: float) -> bool:
    apart = abs(float(weights[token] - weights[expected]))
    return token == expected or 0 < apart <= 2 * slack
