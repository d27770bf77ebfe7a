"""Lines of explanations: what a model says of a target, what needs no model, and what each is worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from atlas_builder.explain import prompts
from atlas_builder.explain.excerpts import Excerpt
from atlas_builder.explain.journal import JournalledServer
from atlas_builder.explain.judging import Judge, Materials
from atlas_builder.explain.results import kept_text
from atlas_builder.explain.targets import ExplainTarget
from atlas_builder.records.explanations import Explanation, ExplanationKey, digest_of
from atlas_builder.records.schema import Record

_TOKENS = "The neuron is most active on these tokens: {tokens}."


class Job(NamedTuple):
    """The lines of a target that are missing, without what is not known yet."""

    target: ExplainTarget
    drafts: list[Explanation]

    @property
    def keys(self) -> list[ExplanationKey]:
        """The keys of its lines."""
        return [draft.key for draft in self.drafts]


class Explainer:
    """Makes the lines of targets."""

    def __init__(self, server: JournalledServer, judge: Judge, seed: int) -> None:
        self.server, self.judge = server, judge
        self._seed = seed

    def drafts(self, target: ExplainTarget, record: Record, baselines: bool) -> list[Explanation]:
        """The lines of a target before anything is asked; with `baselines`, of a behaviour also what needs no model."""
        draft = Explanation(
            record["id"], target.layer, target.unit, target.number, digest_of(record, target.number), self.server.name,
            "explain", self.judge.name, self._seed,
        )  # fmt: skip
        if not (baselines and target.behaviour):
            return [draft]
        behaviour = next(one for one in record["behaviours"] if one["id"] == target.behaviour)
        texts = {"label": behaviour["label"], "tokens": top_tokens(behaviour)}
        return [
            draft,
            *(
                replace(draft, model="", source=source, explanation=kept_text(text))
                for source, text in texts.items()
                if kept_text(text)
            ),
        ]

    def lines(self, job: Job, materials: Materials | None, others: Materials | None) -> list[Explanation]:
        """The lines of a job; none of the model's own where it gives no answer. Raises `ServerError`."""
        if materials is None:  # it never fires: nothing to explain, and nothing to score on
            return [replace(draft, judge=self.judge.name, seed=self._seed) for draft in job.drafts]
        drafts = [draft if draft.explanation else self._explained(draft, materials) for draft in job.drafts]
        return [self._scored(draft, materials, others) for draft in drafts if draft is not None]

    def _explained(self, draft: Explanation, materials: Materials) -> Explanation | None:
        explanation = self._asked(materials.explained, materials.maximum)
        ranged = ""
        if explanation and materials.range_explained and "simulation" in self.judge.methods:
            ranged = self._asked(materials.range_explained, materials.maximum)
        return replace(draft, explanation=explanation, range_explanation=ranged) if explanation else None

    def _asked(self, excerpts: Sequence[Excerpt], maximum: float) -> str:
        """An explanation made from excerpts; empty if there is none."""
        return kept_text(self.server.ask(prompts.explaining(excerpts, maximum)) or "") if excerpts else ""

    def _scored(self, draft: Explanation, materials: Materials, others: Materials | None) -> Explanation:
        return replace(
            draft,
            judge=self.judge.name,
            seed=self._seed,
            scores=self.judge.scores(draft.explanation, draft.range_explanation, materials),
            floor=self.judge.floor(draft.explanation, others),
        )


def top_tokens(behaviour: Record) -> str:
    """A sentence that lists the top tokens of a behaviour as its record has them; empty where there are none."""
    tokens = [json.dumps(token, ensure_ascii=False) for token, _ in behaviour["tokens"]]
    return _TOKENS.format(tokens=", ".join(tokens)) if tokens else ""
