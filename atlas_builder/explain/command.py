"""The command `explain`: which explanations are asked for or taken, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atlas_builder.errors import ConfigurationError
from atlas_builder.explain.client import OpenAIServer
from atlas_builder.explain.options import METHODS
from atlas_builder.explain.published import given_explanations
from atlas_builder.explain.results import (
    beside,
    mean_scores,
    of_atlas,
    read_explanations,
    write_explanations,
)
from atlas_builder.explain.run import explain, sole_writer
from atlas_builder.progress import Progress
from atlas_builder.records.explanations import Explanation


def run_explain(
    folder: Path,
    *,
    server: str | None = None,
    model: str | None = None,
    judge_server: str | None = None,
    judge: str | None = None,
    behaviours: int | None = None,
    units: int | None = None,
    only: Sequence[str] = (),
    given: str | None = None,
    scores: Sequence[str] = (),
    baselines: bool = True,
    seed: int = 0,
    at_once: int = 16,
    answer_tokens: int | None = None,
    output: Path | None = None,
    overrides: tuple[str, ...] = (),
    progress: Progress,
    say: Callable[[str], object],
) -> None:
    """Explain, or take explanations, as the options say; raises `ConfigurationError` where they do not fit together."""
    file = output or beside(folder)
    asked, judging = _servers(server, model, judge_server, judge, answer_tokens)
    if asked is None and (given is None or behaviours or units or only):
        raise ConfigurationError("explain requires --server and --model, or --from with explanations that exist.")
    lines: list[Explanation] = []
    if given is not None:
        lines, sentences = given_explanations(given, folder)
        for sentence in sentences:
            say(sentence)
    fitting = of_atlas(folder, lines) if asked else []
    if unscored := [one for one in lines if one not in fitting]:
        _take(file, unscored, progress)
    results = lines
    if asked is not None and (fitting or given is None or behaviours or units or only):
        results = explain(
            folder, asked, file, behaviours=behaviours, units=units, only=only, given=fitting, judge=judging,
            scores=scores or METHODS, baselines=baselines, seed=seed, at_once=at_once, overrides=overrides,
            progress=progress,
        )  # fmt: skip
        for line in mean_scores(results):
            say(line)
    say(f"{len(results)} explanations: {file}")


def _servers(
    server: str | None, model: str | None, judge_server: str | None, judge: str | None, answer_tokens: int | None
) -> tuple[OpenAIServer | None, OpenAIServer | None]:
    """The server that explains and, if it is another, the one that scores."""
    if (server is None) != (model is None):
        raise ConfigurationError("--server and --model go together: name both.")
    if judge_server is not None and judge is None:
        raise ConfigurationError("--judge-server: name the model there with --judge.")
    if server is None or model is None:
        if judge is not None:
            raise ConfigurationError("--judge scores beside --server and --model: name these too.")
        return None, None
    judging = None if judge is None else OpenAIServer(judge_server or server, judge, answer_tokens)
    return OpenAIServer(server, model, answer_tokens), judging


def _take(file: Path, lines: Sequence[Explanation], progress: Progress) -> None:
    """Put lines into a file; those that are there with the same explanation, perhaps with scores, stay."""
    with sole_writer(file):
        known = {one.key: one for one in read_explanations(file, progress.say)}
        for one in lines:
            there = known.get(one.key)
            if there is None or (there.explanation, there.does) != (one.explanation, one.does):
                known[one.key] = one
        write_explanations(file, list(known.values()))
