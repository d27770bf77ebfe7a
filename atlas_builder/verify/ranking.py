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
    slack: NDArray[np.float64] | None = None,
) -> None:
    """Compare a list of [text, number] with the first tokens by falling weight, of equal ones the lower id.

    `weights`, (tokens,), are NaN for tokens that are never listed; each may be off by its `slack`, (tokens,), so
    that two tokens whose weights differ by less may change places. Without it, weights are exact.
    """
    known = np.flatnonzero(~np.isnan(weights))
    order = known[np.lexsort([known, -weights[known]])].tolist()
    off = np.zeros(len(weights)) if slack is None else slack
    report.count(kind, max(1, len(claimed)))
    if len(claimed) != min(limit, len(order)):
        report.wrong(f"{what} lists {len(claimed)} tokens, but {min(limit, len(order))} were found")
        return
    left = order[: 4 * limit + 16]
    for place, (text, number) in enumerate(claimed):
        expected = order[place]
        weight = float(weights[expected])
        token = next((token for token in left if texts(token) == text and _near(weights, token, expected, off)), None)
        if token is None or not agrees(float(str(number)), float(weights[token]), float(off[token])):
            report.wrong(
                f"{what}: number {place + 1} is published as {text!r} with {number}, "
                f"but computed as {texts(expected)!r} with {weight:.4g}"
            )
            return
        left.remove(token)


def _near(weights: NDArray[np.float64], token: int, expected: int, slack: NDArray[np.float64]) -> bool:
    apart = abs(float(weights[token] - weights[expected]))
    return token == expected or 0 < apart <= float(slack[token] + slack[expected])
