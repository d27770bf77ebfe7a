"""Scores of explanations on excerpts, by a model that answers questions from the explanation alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atlas_builder.explain.excerpts import Excerpt
from atlas_builder.explain.journal import JournalledServer
from atlas_builder.explain.options import METHODS
from atlas_builder.explain.prompts import chosen_numbers, detecting, fuzzing, simulated, simulating
from atlas_builder.explain.scoring import correlation, rank_correlation
from atlas_builder.explain.trials import Trial, balanced_accuracy
from atlas_builder.records.explanations import ExplanationScores, FloorScores
from atlas_builder.rounding import significant

_Parsed = TypeVar("_Parsed")


class Materials(NamedTuple):
    """What a target is explained from and scored on; `maximum` is the highest activation of its unit and side.

    The ranges are of whole units, and of those only there are so many questions to simulate as excerpts.
    """

    maximum: float
    is_unit: bool
    explained: list[Excerpt]
    top: list[Excerpt]
    random: list[Excerpt]
    range_explained: list[Excerpt]
    range_scored: list[Excerpt]
    detection: Trial
    fuzzing: Trial


class Judge:
    """Scores explanations by the answers of a model."""

    def __init__(self, server: JournalledServer, methods: Sequence[str] = METHODS) -> None:
        self.server, self.methods = server, methods
        self.answered = self.unreadable = 0
        self._lock = Lock()

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.server.name

    def scores(self, explanation: str, range_explanation: str, materials: Materials) -> ExplanationScores:
        """The scores of an explanation of a target, on its materials."""
        scores = ExplanationScores(**self._recognised(explanation, materials))
        if "simulation" not in self.methods:
            return scores
        simulations = self._simulations(explanation, materials)
        scores = scores._replace(simulation=_score(correlation, simulations, [*materials.top, *materials.random]))
        if not materials.is_unit:
            return scores
        ranged = materials.range_scored
        return scores._replace(
            random_only=_score(correlation, simulations[len(materials.top) :], materials.random),
            whole_range=_score(rank_correlation, [self._simulated(range_explanation, ranged)], ranged)
            if range_explanation
            else None,
        )

    def floor(self, explanation: str, others: Materials | None) -> FloorScores:
        """The scores of the explanation on the materials of another target."""
        if others is None:
            return FloorScores()
        floor = FloorScores(**self._recognised(explanation, others))
        if "simulation" not in self.methods:
            return floor
        simulations = self._simulations(explanation, others)
        return floor._replace(simulation=_score(correlation, simulations, [*others.top, *others.random]))

    def _recognised(self, explanation: str, materials: Materials) -> dict[str, float | None]:
        """Balanced accuracies of detection and fuzzing, by name."""
        return {
            name: self._accuracy(prompt, explanation, trial)
            for name, prompt, trial in (
                ("detection", detecting, materials.detection),
                ("fuzzing", fuzzing, materials.fuzzing),
            )
            if name in self.methods
        }

    def _accuracy(self, prompt: Callable[[str, Sequence[str]], str], explanation: str, trial: Trial) -> float | None:
        if not trial.is_scored:
            return None
        chosen = self._read(prompt(explanation, trial.texts), lambda answer: chosen_numbers(answer, len(trial.texts)))
        accuracy = balanced_accuracy(trial.truth, chosen)
        return None if accuracy is None else significant(accuracy)

    def _simulations(self, explanation: str, materials: Materials) -> list[Simulated]:
        """Simulated activations: of a unit an array for each excerpt, by a question each; of a behaviour one array."""
        excerpts = [*materials.top, *materials.random]
        if materials.is_unit:
            return [self._simulated(explanation, [excerpt]) for excerpt in excerpts]
        # Without an activating excerpt there is nothing to predict.
        return [self._simulated(explanation, excerpts) if materials.top else None]

    def _simulated(self, explanation: str, excerpts: list[Excerpt]) -> Simulated:
        """Activations simulated from an explanation on some excerpts, (tokens,); None if the answer is unreadable."""
        tokens = sum(len(excerpt.tokens) for excerpt in excerpts)
        if not tokens:
            return np.zeros(0)
        question = simulating(explanation, [excerpt.tokens for excerpt in excerpts])
        return self._read(question, lambda answer: simulated(answer, tokens))

    def _read(self, question: str, parse: Callable[[str], _Parsed | None]) -> _Parsed | None:
        """What an answer says; None if there is none, or it is unreadable, which is counted."""
        answer = self.server.ask(question)
        parsed = None if answer is None else parse(answer)
        with self._lock:
            self.answered += answer is not None
            self.unreadable += answer is not None and parsed is None
        return parsed


Simulated = NDArray[np.float64] | None


def _score(
    measure: Callable[[ArrayLike, ArrayLike], float | None],
    simulations: Sequence[Simulated],
    excerpts: Sequence[Excerpt],
) -> float | None:
    """A correlation over all tokens of excerpts, rounded as in records; None if an answer is missing."""
    known = [simulation for simulation in simulations if simulation is not None]
    if len(known) < len(simulations):
        return None
    true = np.concatenate([np.zeros(0), *(excerpt.values for excerpt in excerpts)])
    score = measure(np.concatenate([np.zeros(0), *known]), true)
    return None if score is None else significant(score)
