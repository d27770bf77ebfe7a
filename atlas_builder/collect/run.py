"""The pass over the corpus: one forward run feeds every layer's collector.

A pass is one shard or several, on one machine or several, each in a folder of its own;
`merge_passes` makes the stage's results of them, which do not depend on the number of shards.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atlas_builder.collect.checkpoints import WHOLE, Collectors, Shard, checkpoint_damage, collectors
from atlas_builder.collect.layer import LayerShape, NotFiniteError
from atlas_builder.collect.own import OTHER, UNKNOWN
from atlas_builder.collect.write import finish
from atlas_builder.config import Configuration
from atlas_builder.corpus import contexts, documents
from atlas_builder.corpus.attributes import check_attributes
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.errors import ActivationError, ConfigurationError
from atlas_builder.files import read_json, write_json
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import as_float32, in_halves, keep_memory, tokens_that_fit
from atlas_builder.progress import Progress
from atlas_builder.units.base import OutputUnits, TrainedUnits, Units

_FACTS = "facts.json"
_MERGING = ".merging-"
_CONTEXTS_BETWEEN_CHECKPOINTS = 8192
_SECONDS_BETWEEN_CHECKPOINTS = 300.0


def collect(
    model: LanguageModel,
    units: Units,
    config: Configuration,
    folder: Path,
    progress: Progress,
    shard: Shard = WHOLE,
    prepared: Path | None = None,
) -> None:
    """Run the model over a shard of the corpus once and write to `folder` what `merge_passes` needs.

    Where an earlier run of the same shard was interrupted, it continues from that run's
    last checkpoint. What does not depend on the shard is read from `prepared`, where
    `prepare_pass` wrote it, and else made here. Raises `CorpusError` for a broken or empty corpus, `ActivationError`
    where the model computes NaN or infinity, and `OutOfMemoryError` where not even one
    context fits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = "collect" if shard == WHOLE else f"collect {shard}"
    if harm := checkpoint_damage(folder):
        progress.say(f"{name}: begins again, since {harm}")
        shutil.rmtree(folder)
    whole = prepared or folder
    if not (whole / _FACTS).exists():
        prepare_pass(model, units, config, whole, progress)
    read = contexts.read_contexts(whole / "contexts")
    shapes = [LayerShape(**shape) for shape in read_json(whole / _FACTS)["shapes"]]
    with collectors(shapes, config.examples, folder, torch.get_num_threads()) as opened:
        run = _Run(units, read, opened, config.model.device, progress)
        run.fit(tokens_that_fit(model.bridge.cfg, config.corpus.context, config.model.device))
        _pass(run, opened, shard.batches(read, shapes), name, progress)


def prepare_pass(model: LanguageModel, units: Units, config: Configuration, folder: Path, progress: Progress) -> None:
    """Write what does not depend on the shard: contexts, weights and, last, facts. Raises as `collect` does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    skipped = documents.Skipped()
    token_texts = model.token_texts
    with progress.task("tokenise", total=config.corpus.max_tokens, unit="tokens") as advance:
        read = contexts.write_contexts(
            documents.documents(config.corpus, skipped),
            model.encode,
            folder / "contexts",
            context=config.corpus.context,
            bos=None if isinstance(units, TrainedUnits) and not units.prepends_bos else model.bos,
            max_tokens=config.corpus.max_tokens,
            max_documents=config.corpus.max_documents,
            texts=token_texts,
            on_tokens=advance,
        )
    check_attributes(config.corpus, read.attributes, skipped.fields)
    for note in units.notes if isinstance(units, TrainedUnits) else ():
        progress.say(note)
    for line in skipped.said(config.corpus):
        progress.say(line)
    shapes, digest = [], hashlib.sha256()
    for layer in units.layers:
        reads = units.read_weights(layer).numpy()
        shapes.append(_shape(units, layer, reads.shape[2], config))
        (folder / f"L{layer}").mkdir()
        digest.update(reads.tobytes())
        np.save(folder / f"L{layer}" / "read.npy", reads)
        if (writes := units.write_weights(layer)) is not None:
            np.save(folder / f"L{layer}" / "write.npy", writes.numpy())
        if isinstance(units, OutputUnits):
            np.save(folder / f"L{layer}" / "output_tokens.npy", np.array(units.tokens, np.int32))
    if model.has_direct_logits:
        np.save(folder / "unembedding.npy", model.unembedding().numpy())
    if not model.is_causal:
        progress.say(
            "this model reads in both directions and predicts no next token: a next-token loss would mean nothing, so "
            "loss, direct logit effects and steering are left out"
        )
    write_json(folder / "tokens.json", token_texts)
    facts = {
        **model.facts,
        **({"bos_token": None} if read.bos is None else {}),
        "kind": units.kind,
        # Shards of other directions, found on another machine, are not to be merged.
        **({"directions_sha256": digest.hexdigest()} if units.kind == "basis" else {}),
        **({"output_tokens": list(units.tokens)} if isinstance(units, OutputUnits) else {}),
        "activation": units.activation,
        "shapes": [vars(shape) for shape in shapes],
        "corpus_sha256": read.sha256,
        "documents": len(read.names),
        "contexts": len(read),
        "tokens": read.token_count,
        "lines_skipped": skipped.lines,
    }
    write_json(folder / _FACTS, facts)


def _shape(units: Units, layer: int, width: int, config: Configuration) -> LayerShape:
    return LayerShape(
        layer,
        units.count(layer),
        width,
        signs=2 if units.has_negative(layer) else 1,
        draws=config.examples.association_draws if config.names_associations else 0,
        predicts=isinstance(units, OutputUnits),
    )


def _pass(run: _Run, opened: Collectors, batches: list[NDArray[np.int64]], name: str, progress: Progress) -> None:
    keep_memory()
    total = sum(run.tokens_of(batch) for batch in batches)
    seen, last = 0, time.monotonic()
    contexts_in_all, contexts_done = (sum(map(len, part)) for part in (batches, batches[: opened.done]))
    if opened.done:
        progress.say(f"{name}: continuing after {contexts_done:,} of {contexts_in_all:,} contexts")
    known = sum(run.tokens_of(batch) for batch in batches[: opened.done])
    with progress.task(name, total=total, unit="tokens", done=known) as advance:
        for batch in batches[opened.done :]:
            run.batch(batch)
            opened.done += 1
            seen += len(batch)
            contexts_done += len(batch)
            advance(run.tokens_of(batch), f"{contexts_done:,} of {contexts_in_all:,} contexts")
            if seen >= _CONTEXTS_BETWEEN_CHECKPOINTS or time.monotonic() - last > _SECONDS_BETWEEN_CHECKPOINTS:
                opened.checkpoint()
                seen, last = 0, time.monotonic()
        opened.checkpoint()


class _Run:
    """Runs batches, in parts where memory is short."""

    def __init__(self, units: Units, read: Contexts, opened: Collectors, device: str, progress: Progress) -> None:
        self._units, self._read, self._collectors = units, read, opened.layers
        self._device, self._progress = device, progress
        self._head = int(read.bos is not None)  # the beginning-of-sequence token is left out
        self._unit_of = _unit_of(units)
        self._tokens = 1

    def fit(self, tokens: int) -> None:
        """Run at most so many tokens at once, but at least one context."""
        self._tokens = max(1, tokens)

    def tokens_of(self, batch: NDArray[np.int64]) -> int:
        """Number of tokens of text in a batch."""
        return len(batch) * int(self._read.starts[batch[0] + 1] - self._read.starts[batch[0]])

    def batch(self, batch: NDArray[np.int64]) -> None:
        """Run a batch of contexts of one length and collect it in every layer."""
        length = self.tokens_of(batch) // len(batch) + self._head
        size = max(1, self._tokens // length)
        for start in range(0, len(batch), size):
            self._part(batch[start : start + size])

    def _part(self, part: NDArray[np.int64]) -> None:
        """Run some contexts; after running out of memory, no layer collects the same context twice."""
        collected = {layer: np.zeros(len(part), bool) for layer in self._units.layers}

        def run(rows: slice) -> None:
            def visit(layer: int, inputs: Tensor, activations: Tensor) -> None:
                if not collected[layer][rows].all():
                    on_cpu = as_float32(inputs), as_float32(activations)
                    collected[layer][rows] = True
                    self._visit(layer, part[rows], *on_cpu)

            self._units.run(torch.from_numpy(self._read.stack(part[rows])).to(self._device), visit)

        def on_halving(contexts: int, half: int) -> None:
            self.fit(half * length)
            self._progress.say(f"out of memory with {contexts} contexts at once: continuing with {half}")

        length = self.tokens_of(part) // len(part) + self._head
        refusal = (
            f"one context of {length} tokens does not fit into the memory of {self._device}: "
            "set a smaller corpus.context or model.dtype bfloat16."
        )
        in_halves(run, len(part), self._device, refusal, on_halving)

    def _visit(self, layer: int, part: NDArray[np.int64], inputs: Tensor, activations: Tensor) -> None:
        try:
            self._collectors[layer].visit(part, inputs, activations, self._head, self._own(part))
        except NotFiniteError as error:
            document = self._read.names[self._read.document[error.context]]
            what = "activations of more than 10⁹" if error.too_large else "NaN or infinity"
            units = ", ".join(map(str, error.units[:3])) + (", …" if len(error.units) > 3 else "")
            raise ActivationError(
                f"layer {layer} computes {what} in document {document} "
                f"({len(error.units):,} of {activations.shape[2]:,} units: {units}): "
                "run the model in float32 or check its weights."
            ) from None

    def _own(self, part: NDArray[np.int64]) -> NDArray[np.int32] | None:
        """The unit of the next token of some contexts, as `OwnPositions` has it; None for units that are no tokens."""
        if self._unit_of is None:
            return None
        following = self._read.next_tokens(part)
        units = self._unit_of[np.minimum(following, len(self._unit_of) - 1)]
        return np.where(following < 0, UNKNOWN, units).astype(np.int32)


def _unit_of(units: Units) -> NDArray[np.int64] | None:
    """The unit of each token up to the last that is one; the last entry is that of all tokens after."""
    if not isinstance(units, OutputUnits):
        return None
    numbers = np.full(max(units.tokens) + 2, OTHER, np.int64)
    numbers[list(units.tokens)] = np.arange(len(units.tokens))
    return numbers


def merge_passes(
    shards: Sequence[Path],
    config: Configuration,
    folder: Path,
    progress: Progress,
    *,
    prepared: Path | None = None,
    executor: Executor | None = None,
) -> None:
    """Make the results of the pass from the folders of all its shards.

    What does not depend on the shard is in `prepared` or, if none is given, in each of them. Layers are
    merged through the `executor`, or here. Raises `ConfigurationError` where shards belong to different passes.
    """
    whole = prepared or shards[0]
    facts = _facts_of_all([prepared] if prepared else shards)
    shapes = [LayerShape(**shape) for shape in facts.pop("shapes")]
    shutil.copytree(whole / "contexts", folder / "contexts", dirs_exist_ok=True)
    given = [(shards, whole, shape, config, folder) for shape in shapes]
    tasks = [executor.submit(_merge_layer, *one) for one in given] if executor else []
    with progress.task("select", total=len(shapes), unit="layers") as advance:
        for place, one in enumerate(given):
            if tasks:
                tasks[place].result()
            else:
                _merge_layer(*one)
            advance(1)
    for name in ("unembedding.npy", "tokens.json"):
        if (whole / name).exists():  # some models have no direct logit effects
            shutil.copyfile(whole / name, folder / name)
    for left in folder.glob(f"{_MERGING}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    facts["layers_read"] = [shape.layer for shape in shapes]
    facts["units"] = [{"layer": shape.layer, "units": shape.units} for shape in shapes]
    write_json(folder / _FACTS, facts)  # last, see is_merged


def is_merged(folder: Path) -> bool:
    """Whether `merge_passes` has written all its results to `folder`."""
    return (folder / _FACTS).exists()


def _merge_layer(shards: Sequence[Path], whole: Path, shape: LayerShape, config: Configuration, folder: Path) -> None:
    """Write a layer's results: in one step, since a machine that was thought lost may write them too."""
    read = contexts.read_contexts(whole / "contexts")
    with tempfile.TemporaryDirectory(dir=folder, prefix=_MERGING) as name, ExitStack() as stack:
        scratch, target = Path(name) / "merged", Path(name) / f"L{shape.layer}"
        first = shards[0] if len(shards) == 1 else scratch
        collector = stack.enter_context(collectors([shape], config.examples, first, 1)).layers[shape.layer]
        for shard in shards if len(shards) > 1 else ():  # one at a time: there may be hundreds
            with collectors([shape], config.examples, shard, 1) as part:
                collector.merge(part.layers[shape.layer])
        finish(collector, read, target)
        for file in ("read.npy", "write.npy", "output_tokens.npy"):
            if (made := whole / f"L{shape.layer}" / file).exists():  # output neurons write nothing
                shutil.copyfile(made, target / file)
        shutil.rmtree(folder / target.name, ignore_errors=True)
        target.rename(folder / target.name)


def _facts_of_all(shards: Sequence[Path]) -> dict[str, Any]:
    records: list[dict[str, Any]] = [read_json(shard / _FACTS) for shard in shards]
    for shard, facts in zip(shards, records, strict=True):
        if facts != records[0]:
            raise ConfigurationError(f"{shard} and {shards[0]} are of different models or texts: run the shards again.")
    return records[0]
