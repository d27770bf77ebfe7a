"""The pass over the corpus: one forward run feeds every layer's collector.

A pass is one shard or several, on one machine or several, each in a folder of its own;
`merge_passes` makes the stage's results of them, which do not depend on the number of shards.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from atlas_builder.collect.batch_run import BatchRun
from atlas_builder.collect.checkpoints import WHOLE, Collectors, Shard, checkpoint_damage, collectors
from atlas_builder.collect.engine import Loops, OnDevice, looks_on_device
from atlas_builder.collect.layer import LayerShape
from atlas_builder.collect.second_run import LayerReading, reads_again
from atlas_builder.collect.write import finish
from atlas_builder.config import Configuration
from atlas_builder.corpus import contexts, documents
from atlas_builder.corpus.attributes import check_attributes
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.errors import ConfigurationError
from atlas_builder.files import read_json, write_json
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import keep_memory, return_freed_memory, tokens_that_fit
from atlas_builder.models.model_text import write_corpus
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
    on_device = looks_on_device(config.model) and not config.corpus.chat
    if config.corpus.chat and looks_on_device(config.model):
        progress.say(f"{name}: activations on chat text are looked at by loops, which leave out special tokens")
    if harm := checkpoint_damage(folder, on_device=on_device):
        progress.say(f"{name}: begins again, since {harm}")
        shutil.rmtree(folder)
    whole = prepared or folder
    if not (whole / _FACTS).exists():
        prepare_pass(model, units, config, whole, progress)
    read = contexts.read_contexts(whole / "contexts")
    shapes = [LayerShape(**shape) for shape in read_json(whole / _FACTS)["shapes"]]
    with collectors(shapes, config.examples, folder, torch.get_num_threads()) as opened:
        batches = shard.batches(read, shapes)
        if opened.reads_again is None:
            opened.reads_again = on_device and _reads_again(model, config, read, batches, opened)
        device = config.model.device
        engine = OnDevice(opened.layers, device, logs=not opened.reads_again) if on_device else Loops(opened.layers)
        run = BatchRun(units, read, opened, device, progress, engine)
        run.fit(tokens_that_fit(model.bridge.cfg, config.corpus.context, device))
        _pass(run, opened, batches, name, progress)
        if opened.reads_again:
            readings = {
                layer: LayerReading(one, batches, device, is_whole=shard.of == 1)
                for layer, one in opened.layers.items()
            }
            _second_run(run, opened, batches, readings, name, progress)


def _reads_again(
    model: LanguageModel, config: Configuration, read: Contexts, batches: list[NDArray[np.int64]], opened: Collectors
) -> bool:
    parameters = sum(part.numel() for part in model.bridge.original_model.parameters())
    shapes = [collector.shape for collector in opened.layers.values()]
    count = sum(map(len, batches))
    tokens = read.token_count * count // max(1, len(read))
    return reads_again(shapes, config.examples, count, tokens, parameters, config.model.device, opened.folder)


def prepare_pass(model: LanguageModel, units: Units, config: Configuration, folder: Path, progress: Progress) -> None:
    """Write what does not depend on the shard: contexts, weights and, last, facts. Raises as `collect` does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    skipped = documents.Skipped()
    token_texts = model.token_texts
    bos = None if isinstance(units, TrainedUnits) and not units.prepends_bos else model.bos
    read = write_corpus(model, config.corpus, folder / "contexts", bos, skipped, progress)
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
        **({"chat": {"counted": read.counted, "roles": [*read.role_names][1:]}} if config.corpus.chat else {}),
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


def _pass(run: BatchRun, opened: Collectors, batches: list[NDArray[np.int64]], name: str, progress: Progress) -> None:
    keep_memory()
    total = sum(run.tokens_of(batch) for batch in batches)
    contexts_in_all, contexts_done = (sum(map(len, part)) for part in (batches, batches[: opened.done]))
    if opened.done:
        progress.say(f"{name}: continuing after {contexts_done:,} of {contexts_in_all:,} contexts")
    known = sum(run.tokens_of(batch) for batch in batches[: opened.done])
    checkpoints = _Checkpoints(run, opened)
    with progress.task(name, total=total, unit="tokens", done=known) as advance:
        for batch in batches[opened.done :]:
            run.batch(batch)
            if not opened.at_once or opened.at_once[-1][1] != run.tokens:
                opened.at_once.append([opened.done, run.tokens])
            contexts_done += len(batch)
            return_freed_memory()
            checkpoints.after(batch)
            advance(run.tokens_of(batch), f"{contexts_done:,} of {contexts_in_all:,} contexts")
        checkpoints.write()


def _second_run(
    run: BatchRun,
    opened: Collectors,
    batches: list[NDArray[np.int64]],
    readings: Mapping[int, LayerReading],
    name: str,
    progress: Progress,
) -> None:
    """Read what a pass did not log, batch by batch as they ran first; `opened.done` counts on."""
    checkpoints, fits = _Checkpoints(run, opened), run.tokens
    begin = opened.done - len(batches)
    total = sum(run.tokens_of(batch) for batch in batches)
    known = sum(run.tokens_of(batch) for batch in batches[:begin])
    with progress.task(f"{name}: inputs", total=total, unit="tokens", done=known) as advance:
        for number, batch in enumerate(batches[begin:], start=begin):
            # As it ran first, for the same bits; in smaller parts only where memory has become too small since.
            as_before = min(fits, [tokens for start, tokens in opened.at_once if start <= number][-1])
            run.fit(as_before)
            run.read_again(number, batch, readings)
            fits = run.tokens if run.tokens < as_before else fits
            checkpoints.after(batch)
            advance(run.tokens_of(batch), "")
        checkpoints.write()


class _Checkpoints:
    """Writes a checkpoint every so many contexts or seconds."""

    def __init__(self, run: BatchRun, opened: Collectors) -> None:
        self._run, self._opened = run, opened
        self._seen, self._last = 0, time.monotonic()

    def after(self, batch: NDArray[np.int64]) -> None:
        """Count a batch as done; write a checkpoint where it is time."""
        self._opened.done += 1
        self._seen += len(batch)
        is_late = time.monotonic() - self._last > _SECONDS_BETWEEN_CHECKPOINTS
        if self._seen >= _CONTEXTS_BETWEEN_CHECKPOINTS or is_late:
            self.write()

    def write(self) -> None:
        """Write a checkpoint now."""
        self._run.engine.settle()
        self._opened.checkpoint()
        self._seen, self._last = 0, time.monotonic()


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
