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

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from atlas_builder.collect.memory import keep_memory
from atlas_builder.errors import ConfigurationError
from atlas_builder.explain import file
from atlas_builder.explain.excerpts import Excerpt, Place, cut, plan
from atlas_builder.explain.file import Explained, Scores
from atlas_builder.explain.prompts import explaining, simulated, simulating
from atlas_builder.explain.scores import correlation, rank_correlation
from atlas_builder.explain.server import Server, ServerError
from atlas_builder.numbers import significant
from atlas_builder.progress import Progress
from atlas_builder.records import unit_id
from atlas_builder.verify.reading import Course, courses
from atlas_builder.verify.source import Source, find

_TRIES = 3


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
    """Ask about some random units that fire, and write a line of JSON about each to `output`.

    Lines that are there already, of the same atlas, model and seed, are kept and not asked
    for again, so what was stopped goes on. `at_once` questions are asked at a time. Raises
    `ServerError` where no answer comes, what `verify.source.find` raises, and
    `ConfigurationError` where `output` holds anything else.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    known = _kept(output, server.name, seed)
    source = find(site, overrides)
    chosen = source.draw(units, seed)
    atlas = source.config.atlas.id
    wanted = {
        layer: open_ for layer, own in chosen.items()
        if (open_ := [unit for unit in own if unit_id(atlas, layer, unit) not in known])
    }  # fmt: skip
    found = [
        known[name] for layer, own in chosen.items() for unit in own if (name := unit_id(atlas, layer, unit)) in known
    ]
    if wanted:
        with progress.task("read", total=source.text.tokens, unit="tokens") as advance:
            read = courses(source.reader, source.text, wanted, advance)
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            output.open("a", encoding="utf-8") as lines,
            ThreadPoolExecutor(at_once) as threads,
            progress.task("explain", total=sum(map(len, wanted.values())), unit="units") as advance,
        ):
            for layer, own in wanted.items():
                for column, unit in enumerate(own):
                    if (one := _explain(source, server, threads, read[layer], layer, unit, column, seed)) is not None:
                        lines.write(one.line)
                        lines.flush()
                        found.append(one)
                    advance(1)
    return sorted(found, key=lambda one: (one.layer, one.id))


def _kept(output: Path, model: str, seed: int) -> dict[str, Explained]:
    """What an earlier run wrote, the file without a last line that was not finished."""
    found = file.read(output)
    if any((one.model, one.seed) != (model, seed) for one in found):
        raise ConfigurationError(f"{output} is of another model or seed: name another file with --output.")
    if output.exists():
        output.write_text("".join(one.line for one in found), encoding="utf-8")
    return {one.id: one for one in found}


def _explain(
    source: Source,
    server: Server,
    threads: ThreadPoolExecutor,
    read: Course,
    layer: int,
    unit: int,
    column: int,
    seed: int,
) -> Explained | None:
    """Ask about one unit; None where it never fires."""
    reader, text = source.reader, source.text
    high = read.high[:, column]
    maximum = float(high.max(initial=0))
    if maximum <= 0:
        return None
    lengths = np.array([len(tokens) for _, _, tokens in text.contexts])
    planned = plan(high, read.high_at[:, column], lengths, [seed, layer, unit])
    values = {
        number: seen[layer][1][row, :, unit].numpy().copy()
        for batch, seen in reader.run(text, planned.contexts, [layer])
        for row, number in enumerate(batch)
    }

    def excerpts(places: list[Place]) -> list[Excerpt]:
        return cut(
            places, lambda one: [reader.token_texts[token] for token in text.contexts[one][2]], values.__getitem__
        )

    top, random, ranged = (excerpts(part) for part in (planned.top, planned.random, planned.range_scored))
    said, range_said = threads.map(
        lambda part: " ".join(server.ask(explaining(excerpts(part), maximum)).split()),
        (planned.explained, planned.range_explained),
    )
    asked = [(said, [excerpt]) for excerpt in (*top, *random)] + [(range_said, ranged)]
    *told, range_told = threads.map(lambda question: _simulate(server, *question), asked)
    return Explained(
        id=unit_id(source.config.atlas.id, layer, unit),
        layer=layer,
        model=server.name,
        seed=seed,
        explanation=said,
        range_explanation=range_said,
        scores=Scores(
            top_and_random=_rounded(correlation(np.concatenate(told), _values([*top, *random]))),
            random_only=_rounded(correlation(np.concatenate([*told[len(top) :], []]), _values(random))),
            whole_range=_rounded(rank_correlation(range_told, _values(ranged))),
        ),
    )


def _simulate(server: Server, explanation: str, excerpts: list[Excerpt]) -> np.ndarray:
    """What the explanation makes of the tokens of some excerpts: (tokens,)."""
    question = simulating(explanation, [excerpt.tokens for excerpt in excerpts])
    tokens = sum(len(excerpt.tokens) for excerpt in excerpts)
    for _ in range(_TRIES):
        if (found := simulated(server.ask(question), tokens)) is not None:
            return found
    raise ServerError(f"{server.name} does not answer as it is asked to: try another model.")


def _values(excerpts: Sequence[Excerpt]) -> np.ndarray:
    return np.concatenate([*(excerpt.values for excerpt in excerpts), []])


def _rounded(score: float | None) -> float | None:
    return None if score is None else significant(score)
