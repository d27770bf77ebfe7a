"""Explain random units of a built atlas with another language model, and score the explanations.

A model is shown where a unit is active and says what for; from these words alone it then
says how active the unit is on other text. The score is the correlation of that with the
truth, in three ways (CRATE's paper uses these three):

- `top_and_random` (Bills et al. 2023): Pearson's r over tokens of five of the highest
  contexts and five random ones, 64 tokens of each.
- `random_only`: over those of the random ones.
- `whole_range` (after Bricken et al. 2023): Spearman's rho over tokens of short excerpts from
  the top, from twelve equal intervals below it, and random ones, with an explanation of its
  own from other excerpts of that kind. Theirs also has the top tokens in other contexts.

It says as much about the model that is asked as about the unit: compare only what one model said.
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
    """Ask about some random units, and write a line of JSON about each to `output`.

    Lines that are there already, of these units as they are now, are kept and not asked for
    again, so what was stopped goes on. `at_once` questions are asked at a time. A unit that
    never fires, and one whose answers cannot be read, has no scores. Raises `ServerError`
    where no answer comes, what `rerun.source.open_rerun` raises, and `ConfigurationError` where
    `output` holds anything else, or what another model or seed gave.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    source = open_rerun(site, overrides)
    with _alone(output):
        known = {(one.layer, one.unit): one for one in _kept(site, output, server.name, seed)}
        chosen = source.draw(units, seed)
        wanted = {
            layer: still
            for layer, own in chosen.items()
            if (still := [unit for unit in own if (layer, unit) not in known])
        }
        if wanted:
            with progress.task("read", total=source.text.tokens, unit="tokens") as advance:
                read = trace_units(source.reader, source.text, wanted, advance)
            with (
                output.open("a", encoding="utf-8") as lines,
                ThreadPoolExecutor(at_once) as threads,
                progress.task("explain", total=sum(map(len, wanted.values())), unit="units") as advance,
            ):
                asking = _Asking(site, source, server, threads, seed)
                for layer, own in wanted.items():
                    for column, unit in enumerate(own):
                        one = known[layer, unit] = asking.of(layer, unit, read[layer], column)
                        lines.write(one.line)
                        lines.flush()
                        advance(1)
    return [known[layer, unit] for layer, own in sorted(chosen.items()) for unit in own]


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Refuse to write to a file that another run writes to."""
    lock = output.with_name(f".{output.name}.lock")
    with locked(lock, f"another run writes to {output}: wait for it, or name another file."):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _kept(site: Path, output: Path, model: str, seed: int) -> list[Explained]:
    """What an earlier run wrote of the atlas's units as they are; takes away a last line that was not finished."""
    found = results.read_explanations(output)
    if any((one.model, one.seed) != (model, seed) for one in found):
        raise ConfigurationError(f"{output} is of another model or seed: name another file with --output.")
    if output.exists() and not output.read_bytes().endswith(b"\n"):
        draft = output.with_name(f".{output.name}.draft")
        draft.write_text("".join(one.line for one in found), encoding="utf-8")
        draft.replace(output)
    return results.of_atlas(site, found)


@dataclass(frozen=True)
class _Asking:
    """All that the questions about a unit are made from, and who is asked."""

    site: Path
    source: Rerun
    server: Server
    threads: ThreadPoolExecutor
    seed: int

    def of(self, layer: int, unit: int, read: UnitTrace, column: int) -> Explained:
        """What is said of a unit, whose course is a column of what was read."""
        high = read.high[:, column]
        maximum = float(high.max(initial=0))
        said = ("", "", ExplanationScores(None, None, None))
        if maximum > 0:
            lengths = np.array([len(tokens) for _, _, tokens in self.source.text.contexts])
            planned = plan(high, read.high_at[:, column], lengths, [self.seed, layer, unit])
            said = self._said(self._excerpts(layer, unit, planned), maximum)
        name = UnitAddress(layer, unit).within(self.source.config.atlas.id)
        return Explained(name, layer, unit, results.digest(self.site, layer, unit), self.server.name, self.seed, *said)

    def _excerpts(self, layer: int, unit: int, planned: Plan) -> list[list[Excerpt]]:
        """The texts of a plan, part by part."""
        reader, text = self.source.reader, self.source.text
        values = {
            number: seen[layer][1][row, :, unit].numpy().copy()
            for batch, seen in reader.run(text, planned.contexts, [layer])
            for row, number in enumerate(batch)
        }

        def words(context: int) -> list[str]:
            return [reader.token_texts[token] for token in text.contexts[context][2]]

        return [cut(part, words, values.__getitem__) for part in planned]

    def _said(self, parts: list[list[Excerpt]], maximum: float) -> tuple[str, str, ExplanationScores]:
        """Two explanations, and how well they foretell."""
        explained, top, random, range_explained, ranged = parts
        ask = self.threads.map
        said, range_said = ask(
            lambda part: " ".join(self.server.ask(explaining(part, maximum)).split()), (explained, range_explained)
        )
        *told, range_told = ask(
            self._simulated, [said] * len([*top, *random]) + [range_said], [*([one] for one in (*top, *random)), ranged]
        )
        return (
            said,
            range_said,
            ExplanationScores(
                top_and_random=_score(correlation, told, [*top, *random]),
                random_only=_score(correlation, told[len(top) :], random),
                whole_range=_score(rank_correlation, [range_told], ranged),
            ),
        )

    def _simulated(self, explanation: str, excerpts: list[Excerpt]) -> Simulated:
        """What the explanation makes of the tokens of some excerpts, (tokens,); None where no answer can be read."""
        tokens = sum(len(excerpt.tokens) for excerpt in excerpts)
        if not tokens:
            return np.zeros(0)
        question = simulating(explanation, [excerpt.tokens for excerpt in excerpts])
        return simulated(self.server.ask(question), tokens)


Simulated = NDArray[np.float64] | None


def _score(
    measure: Callable[[ArrayLike, ArrayLike], float | None], told: Sequence[Simulated], excerpts: Sequence[Excerpt]
) -> float | None:
    """A correlation over all tokens of excerpts, as records have numbers; None where an answer is missing."""
    known = [one for one in told if one is not None]
    if len(known) < len(told):
        return None
    true = np.concatenate([np.zeros(0), *(excerpt.values for excerpt in excerpts)])
    found = measure(np.concatenate([np.zeros(0), *known]), true)
    return None if found is None else significant(found)
