"""The settings of units."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from atlas_builder.settings.section import IsPath, Section

TokenName = Annotated[str, Field(min_length=1, max_length=1000)] | Annotated[int, Field(ge=0, lt=2**31, strict=True)]
"""A token by its text or by its number."""


class UnitSettings(Section):
    """Which units get a page."""

    kind: Literal["mlp", "sae", "transcoder", "crate", "basis", "logits"] = "mlp"
    """`mlp`: neurons of the MLPs, plain or gated; `sae`: latents of sparse autoencoders; `transcoder`: features of
    transcoders of the MLPs; `crate`: coordinates of a CRATE's sparse codes; `basis`: directions of what enters MLPs;
    `logits`: output neurons, the logits of tokens, each less the mean over the vocabulary."""
    tokens: list[TokenName] | None = Field(default=None, min_length=1)
    """For kind `logits`, tokens with a page: the text of each, such as `" def"`, or its number in the vocabulary."""
    top: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """For kind `logits`, so many tokens instead: those that come most often in the text."""
    file: Annotated[str | None, IsPath()] = None
    """For kind `logits`, a file of tokens instead: a text on each line, in which spaces count, or, where it is named
    `.json`, a list of texts and numbers."""
    basis: Literal["global", "local", "principal", "random"] = "global"
    """Which directions, for kind `basis`, and for what neurons read (`interaction.report`): the interaction basis
    (arXiv 2405.10927) by the effect on the logits, `global`, or on the directions of the next layer, `local`;
    `principal` components; a `random` rotation of whitened inputs."""
    path: Annotated[str | None, IsPath()] = None
    """Folder of one SAE or transcoder in SAELens's layout, or of several, one per layer."""
    release: str | None = None
    """`demo`, a Hugging Face repository of SAEs (`owner/name`), or a release that sae-lens knows; requires `id`."""
    id: str | None = None
    """Name of the SAE in the release, like `blocks.8.hook_resid_pre`; for `demo`, `plain` or `neuron-embedding`."""
    layers: Literal["all"] | Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] = "all"
    """`all`, or a list of layers, counted from 0."""

    @model_validator(mode="after")
    def _has_its_saes(self) -> UnitSettings:
        coders = ("sae", "transcoder")
        if self.kind in coders and bool(self.path) == bool(self.release and self.id):
            raise ValueError(f"kind {self.kind} requires units.path, or units.release and units.id")
        if self.kind not in coders and (self.path or self.release or self.id):
            raise ValueError(f"kind {self.kind} has no path, release or id: remove them, or set units.kind to sae")
        if self.basis != "global" and self.kind not in ("basis", "mlp"):
            raise ValueError(f"kind {self.kind} has no basis: remove it, or set units.kind to basis")
        return self

    @model_validator(mode="after")
    def _has_its_tokens(self) -> UnitSettings:
        given = [name for name in ("tokens", "top", "file") if getattr(self, name) is not None]
        if self.kind == "logits" and len(given) != 1:
            raise ValueError("kind logits requires one of units.tokens, units.top and units.file")
        if self.kind == "logits" and self.layers != "all":
            raise ValueError("kind logits has no layers, since output neurons come after the last: remove them")
        if self.kind != "logits" and given:
            raise ValueError(f"kind {self.kind} has no {given[0]}: remove it, or set units.kind to logits")
        return self
