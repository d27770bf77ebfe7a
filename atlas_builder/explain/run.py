"""Explain units and behaviours of a built atlas with another language model, and score the explanations.

A model is shown where a unit is active and explains it in words. From the explanation alone a model, the same or
another, then answers questions about other text:

- *simulation* (Bills et al. 2023): how active is the unit on each token? The score is Pearson's r with the true
  activations, over tokens of activating and random excerpts. Of whole units also `random_only`, over those of the
  random ones, and `whole_range` (after Bricken et al. 2023): Spearman's rho over tokens of short excerpts from the top,
  from twelve equal intervals below it, and random ones, with a separate explanation from other excerpts of that kind.
  Theirs also has the top tokens in other contexts.
- *detection* and *fuzzing* (Paulo et al. 2024), as in `trials`: balanced accuracies.

The *random floor* is the same explanation scored on the excerpts of another unit of the layer: what a score is worth
is its distance from there. The computed label of a behaviour and the list of its top tokens are scored as
explanations too. A score depends on the models as much as on the unit: compare only scores by one model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from atlas_builder.errors import ConfigurationError
from atlas_builder.explain import results
from atlas_builder.explain.client import Server
from atlas_builder.explain.explaining import Explainer, Job
from atlas_builder.explain.journal import Journal, JournalledServer
from atlas_builder.explain.judging import Judge, Materials
from atlas_builder.explain.materials import MaterialsReader
from atlas_builder.explain.options import METHODS
from atlas_builder.explain.targets import ExplainTarget, Targets
from atlas_builder.files import locked, read_json
from atlas_builder.models.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.reader import open as open_atlas
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import Explanation, ExplanationKey
from atlas_builder.records.schema import Record
from atlas_builder.rerun.source import open_rerun

DEFAULT = 20
"""Random behaviours where nothing is chosen."""


class Choice(NamedTuple):
    """What is explained: targets by name, and numbers of random main behaviours and units.

    `DEFAULT` behaviours where nothing is chosen.
    """

    behaviours: int | None = None
    units: int | None = None
    only: tuple[str, ...] = ()

    def of(self, targets: Targets, seed: int) -> list[ExplainTarget]:
        """The targets, in order."""
        nothing = self.behaviours is None and self.units is None and not self.only
        behaviours = DEFAULT if nothing else self.behaviours or 0
        return targets.chosen(self.only, behaviours, self.units or 0, seed)


def explain(
    site: Path,
    server: Server,
    output: Path,
    *,
    behaviours: int | None = None,
    units: int | None = None,
    only: Sequence[str] = (),
    given: Sequence[Explanation] = (),
    judge: Server | None = None,
    scores: Sequence[str] = METHODS,
    baselines: bool = True,
    seed: int = 0,
    at_once: int = 16,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explain and score behaviours and units, and append a line of JSON for each explanation to `output`.

    Without a choice, `DEFAULT` random behaviours; with explanations that are `given`, to be scored and written, none.
    Lines already there for what these do now are kept, and answers are in a file beside `output` until all lines are
    there, so that an interrupted run resumes. `at_once` questions are asked at a time. A target that never fires, or
    whose answers cannot be read, has no scores; one that the server gives no answer for has no line. Raises
    `ServerError` if the server does not answer, what `open_rerun` raises, and `ConfigurationError` if a target does not
    exist, or `output` holds anything else, or explanations by another model, judge or seed.
    """
    progress = progress or Progress(quiet=True)
    targets = Targets(open_atlas(site))
    choice = Choice(behaviours, units, tuple(only))
    chosen = [] if given and choice == Choice() else choice.of(targets, seed)
    with sole_writer(output), _journal(output) as journal:
        own = JournalledServer(server, journal)
        explainer = Explainer(own, Judge(own if judge is None else JournalledServer(judge, journal), scores), seed)
        known = {one.key: one for one in _kept(site, output, explainer, seed, bool(chosen), progress)}
        run = _Run(site, targets, explainer, seed, progress)
        every = run.jobs(chosen, given, baselines)
        jobs = run.missing(every, known)
        if jobs:
            materials = run.materials(jobs, overrides)
            with output.open("a", encoding="utf-8", errors="replace") as lines:
                for one in run.lines(jobs, materials, at_once):
                    known[one.key] = one
                    lines.write(one.line)
                    lines.flush()
        run.conclude()
        journal.remove()
    return [known[key] for job in every for key in job.keys if key in known]


@contextmanager
def sole_writer(output: Path) -> Iterator[None]:
    """Lock `output`; refused while another run writes to it."""
    lock = output.with_name(f".{output.name}.lock")
    with locked(lock, f"another run writes to {output}: wait for it, or name another file."):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _journal(output: Path) -> Iterator[Journal]:
    """The journal of answers beside `output`, left there where a run does not end."""
    journal = Journal(output.with_name(f".{output.name}.answers.jsonl"))
    try:
        yield journal
    finally:
        journal.close()


def _kept(
    site: Path, output: Path, explainer: Explainer, seed: int, explains: bool, progress: Progress
) -> list[Explanation]:
    """The lines of an earlier run that fit the atlas as it is now; an unfinished last line is removed."""
    explanations = results.read_explanations(output, progress.say)
    fitting = results.of_atlas(site, explanations)
    by = (explainer.judge.name, seed)
    if any(
        (one.judge is not None and (one.judge, one.seed) != by)
        or (explains and one.source == "explain" and one.model != explainer.server.name)
        for one in fitting
    ):  # fmt: skip
        raise ConfigurationError(
            f"{output} holds explanations by another model or seed, or scores by another model: name another file with "
            "--output."
        )
    results.drop_unfinished(output, explanations)
    return fitting


_Pair = tuple[Materials | None, Materials | None]


class _Run:
    """What a run asks for, and how it goes."""

    def __init__(self, site: Path, targets: Targets, explainer: Explainer, seed: int, progress: Progress) -> None:
        self._site, self._targets, self._explainer = site, targets, explainer
        self._seed, self._progress = seed, progress
        self._read = lru_cache(256)(self._read_record)
        self._asked = self._unanswered = 0

    def _read_record(self, layer: int, unit: int) -> Record:
        record: Record = read_json(self._site / UnitAddress(layer, unit).record)
        return record

    def record(self, target: ExplainTarget) -> Record:
        """The record of a target's unit."""
        return self._read(target.layer, target.unit)

    def jobs(self, chosen: Sequence[ExplainTarget], given: Sequence[Explanation], baselines: bool) -> list[Job]:
        """All lines of targets that are chosen, and those that are given, by target."""
        drafts = {target: self._explainer.drafts(target, self.record(target), baselines) for target in chosen}
        for one in given:
            of_target = drafts.setdefault(ExplainTarget(one.layer, one.unit, one.behaviour or 0), [])
            of_target[:] = [*(other for other in of_target if other.key != one.key), one]
        return [Job(target, drafts[target]) for target in sorted(drafts)]

    def missing(self, jobs: Sequence[Job], known: Mapping[ExplanationKey, Explanation]) -> list[Job]:
        """The jobs without lines that are known, and scored by the judge."""

        def is_missing(draft: Explanation) -> bool:
            line = known.get(draft.key)
            said = draft.explanation
            return line is None or line.judge != self._explainer.judge.name or said not in ("", line.explanation)

        left = [Job(job.target, [draft for draft in job.drafts if is_missing(draft)]) for job in jobs]
        return [job for job in left if job.drafts]

    def materials(self, jobs: Sequence[Job], overrides: tuple[str, ...]) -> dict[ExplainTarget, _Pair]:
        """The materials of each job's target, and of the other target that is its floor."""
        keep_memory()
        others = {job.target: self._targets.other(job.target, self._seed) for job in jobs}
        wanted = sorted({*others, *(other for other in others.values() if other)})
        reader = MaterialsReader(open_rerun(self._site, overrides), self._targets, self._seed)
        read = reader.read(wanted, self.record, self._progress)
        return {target: (read.get(target), read.get(other) if other else None) for target, other in others.items()}

    def lines(
        self, jobs: Sequence[Job], materials: Mapping[ExplainTarget, _Pair], at_once: int
    ) -> Iterator[Explanation]:
        """The lines of all jobs as they are ready; where one fails, what is being asked is waited for, and kept."""
        threads = ThreadPoolExecutor(at_once)
        try:
            with self._progress.task("explain", total=len(jobs), unit="targets") as advance:
                futures = {threads.submit(self._explainer.lines, job, *materials[job.target]): job for job in jobs}
                for future in as_completed(futures):
                    lines = future.result()
                    self._asked += 1
                    self._unanswered += len(lines) < len(futures[future].drafts)
                    yield from lines
                    advance(1)
        finally:
            threads.shutdown(cancel_futures=True)

    def conclude(self) -> None:
        """Say what the server gave no answer for; raises `ServerError` where that is everything."""
        own, judging = self._explainer.server, self._explainer.judge
        judge = judging.server
        if own.refusal and not own.answered and self._unanswered == self._asked:
            raise own.refusal
        if self._unanswered:
            self._progress.say(
                f"{self._unanswered} of {self._asked} have no explanation, for {own.name} refused the question or "
                "returned nothing: run the command again to ask for these again"
            )
        if judge.unanswered and judge is not own:
            self._progress.say(
                f"{judge.unanswered} questions to {judge.name} have no answer, and these scores are missing"
            )
        if judging.unreadable:
            self._progress.say(
                f"{judging.unreadable} of {judging.answered} answers of {judge.name} as the judge are not in the form "
                "that is asked for, and these scores are missing: a larger model keeps to it"
            )
