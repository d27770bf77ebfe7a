"""The pass itself: one forward run over the corpus feeds every layer's collector."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atlas_builder import contexts, corpus
from atlas_builder.collect.layer import LayerCollector, NotFiniteError
from atlas_builder.config import Configuration
from atlas_builder.contexts import Contexts
from atlas_builder.errors import ActivationError
from atlas_builder.model import LanguageModel
from atlas_builder.progress import Progress
from atlas_builder.store import write_json
from atlas_builder.units import Units
from atlas_builder.units.base import as_float32

_TOKENS_AT_ONCE = 8192
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def collect(model: LanguageModel, units: Units, config: Configuration, folder: Path, progress: Progress) -> None:
    """Run the model over the corpus once and write what the later stages need to `folder`.

    Raises `CorpusError` for a broken or empty corpus and `ActivationError` where the
    model computes NaN or infinity.
    """
    skipped = corpus.Skipped()
    with progress.task("tokenise", total=config.corpus.max_tokens, unit="tokens") as advance:
        read = contexts.write(
            corpus.documents(config.corpus, skipped),
            model.encode,
            folder / "contexts",
            context=config.corpus.context,
            bos=model.bos,
            max_tokens=config.corpus.max_tokens,
            max_documents=config.corpus.max_documents,
            on_tokens=advance,
        )
    if skipped.lines:
        progress.say(f"skipped {skipped.lines} broken lines of {config.corpus.path}")

    collectors = {
        layer: LayerCollector(
            layer, units.count(layer), units.read_weights(layer).shape[2], config.examples, folder / f"L{layer}"
        )
        for layer in units.layers
    }
    _pass(units, read, collectors, config, progress)
    with progress.task("select", total=len(collectors), unit="layers") as advance:
        for layer, collector in collectors.items():
            collector.finish(units.read_weights(layer), units.write_weights(layer))
            advance(1)

    np.save(folder / "unembedding.npy", model.unembedding().numpy())
    write_json(folder / "tokens.json", model.token_texts)
    facts = {
        **model.facts,
        "kind": units.kind,
        "activation": units.activation,
        "layers_read": list(units.layers),
        "units": [{"layer": layer, "units": units.count(layer)} for layer in units.layers],
        "corpus_sha256": read.sha256,
        "documents": len(read.names),
        "contexts": len(read),
        "tokens": read.token_count,
        "lines_skipped": skipped.lines,
    }
    write_json(folder / "facts.json", facts)


def keep_memory() -> None:
    """Have glibc keep freed memory instead of handing it back to the system.

    Tensors of a few megabytes come and go with every operation; by default each costs
    its page faults anew.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return  # another C library, with habits of its own


def _pass(
    units: Units, read: Contexts, collectors: dict[int, LayerCollector], config: Configuration, progress: Progress
) -> None:
    keep_memory()
    head = int(read.bos is not None)  # the beginning-of-sequence token counts nowhere
    with progress.task("collect", total=read.token_count, unit="tokens") as advance:
        for batch in read.batches(_TOKENS_AT_ONCE):

            def visit(layer: int, inputs: Tensor, activations: Tensor, batch: np.ndarray = batch) -> None:
                shown, fired = as_float32(inputs[:, head:]), as_float32(activations[:, head:])
                try:
                    collectors[layer].visit(batch, shown, fired)
                except NotFiniteError as error:
                    document = read.names[read.document[error.context]]
                    raise ActivationError(
                        f"layer {layer} computes NaN or infinity in document {document}: "
                        "run the model in float32 or check its weights."
                    ) from None

            tokens = torch.from_numpy(read.stack(batch)).to(config.model.device)
            units.run(tokens, visit)
            advance(tokens.numel() - head * len(batch))
