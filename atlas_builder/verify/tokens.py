"""The tokens, next tokens and labels of a unit's behaviours, from all their examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atlas_builder.rerun.passes import Text
from atlas_builder.verify.ranking import check_ranking
from atlas_builder.verify.shown import Key, activations, whole_window, window
from atlas_builder.verify.unit import UnitCase
from atlas_builder.verify.wording import BehaviourWords, labels_of, words_of
from atlas_builder.verify.words import LayerVocabulary

_BREAK = "\n"  # in place of a chat template's own tokens
_TOKENS, _TOKENS_OF_A_RARE_ONE, _NEXT = 6, 3, 4


def check_tokens(case: UnitCase) -> None:
    """Compare the tokens of each behaviour, and the next tokens of each main one."""
    for claimed, found in zip(case.record["behaviours"], case.behaviours or (), strict=True):
        what = f"{case.name}, behaviour {claimed['id']}"
        shares, off = _token_shares(case, found.members, found.sign)
        check_ranking(
            case.report,
            "tokens",
            f"{what}: tokens",
            claimed["tokens"],
            shares,
            case.texts_read.__getitem__,
            _TOKENS if found.main else _TOKENS_OF_A_RARE_ONE,
            off,
        )
        following = _next_shares(case.text, found.members, len(case.texts_read))
        limit = _NEXT if found.main else 0
        check_ranking(
            case.report, "tokens", f"{what}: next", claimed["next"], following, case.texts_read.__getitem__, limit
        )


def _token_shares(case: UnitCase, members: list[Key], sign: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of each token in the activation around the key tokens, NaN without any, and how far it may be off.

    Each activation may be off by the rounding of the unit's largest: (vocabulary,) both.
    """
    mass, largest = np.zeros((2, len(case.texts_read)))
    for key in members:
        first, tokens = window(case.text, key, *case.config.examples.window)
        tokens = case.text.read(key.context)[first : first + len(tokens)]
        values = sign * activations(case.text, case.values, key.context)[first : first + len(tokens)].astype(np.float64)
        values[case.text.special_in(key.context)[first : first + len(tokens)]] = 0  # they count nowhere
        np.add.at(mass, tokens, np.maximum(values, 0))
        np.add.at(largest, tokens, (values > 0) * case.largest)
    total = float(mass.sum()) or 1.0
    off = case.exactness * (np.maximum(mass, largest) / total + 0.05)
    return np.where(mass > 0, mass / total, np.nan), off


def _next_shares(text: Text, members: list[Key], vocabulary: int) -> NDArray[np.float64]:
    """The share of each token among those that follow the key tokens in their documents, NaN without any."""
    counts = np.zeros(vocabulary)
    for key in members:
        document, _, tokens = text.contexts[key.context]
        behind = key.position + 1
        if text.begins:  # the next character, not the rest of the same
            behind = next(
                (place for place in range(behind, len(tokens)) if text.begins[key.context][place]), len(tokens)
            )
        if behind < len(tokens):
            counts[text.read(key.context)[behind]] += not text.special_in(key.context)[behind]
        elif key.context + 1 < len(text) and text.contexts[key.context + 1][0] == document:
            counts[text.read(key.context + 1)[0]] += not text.special_in(key.context + 1)[0]
    return np.where(counts > 0, counts / (counts.sum() or 1), np.nan)


def described(case: UnitCase, members: list[Key]) -> BehaviourWords:
    """The words of a behaviour's examples."""
    return described_by(case.text, case.texts, case.config.examples.window, members)


def described_by(text: Text, texts: list[str], around: tuple[int, int], members: list[Key]) -> BehaviourWords:
    """The words around key tokens, so many tokens before and after."""
    words = []
    for key in members:
        first, tokens = window(text, key, *whole_window(text, key, *around))
        special = text.special_in(key.context)[first : first + len(tokens)]
        shown = [_BREAK if left_out else texts[token] for token, left_out in zip(tokens, special, strict=True)]
        words.append(words_of(shown, key.position - first))
    return BehaviourWords.of(words)


def check_labels(case: UnitCase, layer: LayerVocabulary) -> None:
    """Compare the label of each behaviour; several may be right where the layer's words are known from a sample."""
    unit = [described(case, behaviour.members) for behaviour in case.behaviours or ()]
    case.report.count("labels", len(unit))
    claimed = [behaviour["label"] for behaviour in case.record["behaviours"]]
    possible: list[set[str]] = [set() for _ in unit]
    first: list[str] = []
    for rarity in layer.rarities((case.layer, case.unit), unit):
        labels = labels_of(unit, rarity)
        first = first or labels
        for label, known in zip(labels, possible, strict=True):
            known.add(label)
        if all(label in known for label, known in zip(claimed, possible, strict=True)):
            return
    for number, (label, known) in enumerate(zip(claimed, possible, strict=True)):
        if label not in known:
            case.report.wrong(
                f"{case.name}, behaviour {number + 1}: label is published as {label!r}, but computed as "
                f"{first[number]!r}"
            )
