"""Explain random units of a built atlas with another language model, and score the explanations.

A model is shown where a unit is active and explains it in words; from the explanation alone
it then simulates the unit's activations on other text. The score is the correlation of
simulated with true activations, in three ways (CRATE's paper uses these three):

- `top_and_random` (Bills et al. 2023): Pearson's r over tokens of five of the highest
  contexts and five random ones, 64 tokens of each.
- `random_only`: over those of the random ones.
- `whole_range` (after Bricken et al. 2023): Spearman's rho over tokens of short excerpts from
  the top, from twelve equal intervals below it, and random ones, with a separate explanation
  from other excerpts of that kind. Theirs also has the top tokens in other contexts.

A score depends on the explaining model as much as on the unit: compare only scores by one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atlas_builder.errors import ConfigurationError
from atlas_builder.explain import results
from atlas_builder.explain.client import Server
from atlas_builder.explain.excerpts import Excerpt, Plan, cut, plan
from atlas_builder.explain.prompts import explaining, simulated, simulating
from atlas_builder.explain.results import Explained, ExplanationScores
from atlas_builder.explain.scoring import correlation, rank_correlation
from atlas_builder.files import locked
from atlas_builder.models.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.rerun.passes import UnitTrace, trace_units
from atlas_builder.rerun.source import Rerun, open_rerun
from atlas_builder.rounding import significant


def explain(
    site: Path,
    server: Server,
    output: Path,
    *,
    units: int = 20,
    seed: int = 0,
    at_once: int = 4,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> list[Explained]:
    """Explain and score some random units, and append a line of JSON for each to `output`.

    Lines already there for these units and their current activations are kept, so that an
    interrupted run resumes. `at_once` questions are asked at a time. A unit that never
    fires, or whose answers cannot be parsed, has no scores. Raises `ServerError` if the
    server does not answer, what `open_rerun` raises, and `ConfigurationError` if `output`
    holds anything else, or explanations by another model or seed.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    source = open_rerun(site, overrides)
    with _alone(output):
        known = {(one.layer, one.unit): one for one in _kept(site, output, server.name, seed)}
        chosen = source.draw(units, seed)
        missing = {
            layer: unexplained
            for layer, numbers in chosen.items()
            if (unexplained := [unit for unit in numbers if (layer, unit) not in known])
        }
        if missing:
            with progress.task("read", total=source.text.tokens, unit="tokens") as advance:
                read = trace_units(source.reader, source.text, missing, advance)
            with (
                output.open("a", encoding="utf-8") as lines,
                ThreadPoolExecutor(at_once) as threads,
                progress.task("explain", total=sum(map(len, missing.values())), unit="units") as advance,
            ):
                asking = _Asking(site, source, server, threads, seed)
                for layer, numbers in missing.items():
                    for column, unit in enumerate(numbers):
                        explanation = known[layer, unit] = asking.of(layer, unit, read[layer], column)
                        lines.write(explanation.line)
                        lines.flush()
                        advance(1)
    return [known[layer, unit] for layer, numbers in sorted(chosen.items()) for unit in numbers]


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Lock `output`; refused while another run writes to it."""
    lock = output.with_name(f".{output.name}.lock")
    with locked(lock, f"another run writes to {output}: wait for it, or name another file."):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _kept(site: Path, output: Path, model: str, seed: int) -> list[Explained]:
    """The lines of an earlier run that fit the atlas as it is now; an unfinished last line is removed."""
    explanations = results.read_explanations(output)
    if any((one.model, one.seed) != (model, seed) for one in explanations):
        raise ConfigurationError(
            f"{output} holds explanations by another model or seed: name another file with --output."
        )
    if output.exists() and not output.read_bytes().endswith(b"\n"):
        draft = output.with_name(f".{output.name}.draft")
        draft.write_text("".join(one.line for one in explanations), encoding="utf-8")
        draft.replace(output)
    return results.of_atlas(site, explanations)


@dataclass(frozen=True)
class _Asking:
    """The atlas that questions are made from, and the server that is asked."""

    site: Path
    source: Rerun
    server: Server
    threads: ThreadPoolExecutor
    seed: int

    def of(self, layer: int, unit: int, trace: UnitTrace, column: int) -> Explained:
        """The explanations and scores of a unit, whose activations are a column of `trace`."""
        high = trace.high[:, column]
        maximum = float(high.max(initial=0))
        result = ("", "", ExplanationScores(None, None, None))
        if maximum > 0:
            lengths = np.array([len(tokens) for _, _, tokens in self.source.text.contexts])
            planned = plan(high, trace.high_at[:, column], lengths, [self.seed, layer, unit])
            result = self._explained(self._excerpts(layer, unit, planned), maximum)
        name = UnitAddress(layer, unit).within(self.source.config.atlas.id)
        return Explained(
            name, layer, unit, results.digest(self.site, layer, unit), self.server.name, self.seed, *result
        )

    def _excerpts(self, layer: int, unit: int, planned: Plan) -> list[list[Excerpt]]:
        """The excerpts of a plan, part by part."""
        reader, text = self.source.reader, self.source.text
        values = {
            number: np.where(text.special_in(number), 0, seen[layer][1][row, :, unit].numpy())
            for batch, seen in reader.run(text, planned.contexts, [layer])
            for row, number in enumerate(batch)
        }

        def words(context: int) -> list[str]:
            return [reader.token_texts[token] for token in text.contexts[context][2]]

        return [cut(part, words, values.__getitem__) for part in planned]

    def _explained(self, parts: list[list[Excerpt]], maximum: float) -> tuple[str, str, ExplanationScores]:
        """Two explanations, and the scores of their simulations."""
        explained, top, random, range_explained, ranged = parts
        ask = self.threads.map
        explanation, range_explanation = ask(
            lambda part: " ".join(self.server.ask(explaining(part, maximum)).split()), (explained, range_explained)
        )
        *simulations, range_simulation = ask(
            self._simulated,
            [explanation] * len([*top, *random]) + [range_explanation],
            [*([excerpt] for excerpt in (*top, *random)), ranged],
        )
        return (
            explanation,
            range_explanation,
            ExplanationScores(
                top_and_random=_score(correlation, simulations, [*top, *random]),
                random_only=_score(correlation, simulations[len(top) :], random),
                whole_range=_score(rank_correlation, [range_simulation], ranged),
            ),
        )

    def _simulated(self, explanation: str, excerpts: list[Excerpt]) -> Simulated:
        """Activations simulated from an explanation on some excerpts, (tokens,); None if the answer is unreadable."""
        tokens = sum(len(excerpt.tokens) for excerpt in excerpts)
        if not tokens:
            return np.zeros(0)
        question = simulating(explanation, [excerpt.tokens for excerpt in excerpts])
        return simulated(self.server.ask(question), tokens)


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
