"""An atlas of any shape without a model: `python -m tests.benchmarks.generated WORK [LAYERS UNITS]`.

Real text under a byte-level BPE of GPT-2's size, units with planted behaviours
(`generated_layer`), described by the real describe stage; neighbours, map and importance
are drawn. By default the shape of GPT-2 small with about three behaviours a unit. It
writes the folders of the stages before publish; the same seed gives the same bytes.
"""

from __future__ import annotations

import sys
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from atlas_builder.cluster.run import Clustered
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.config_file import validate
from atlas_builder.corpus import contexts, documents
from atlas_builder.corpus.token_text import token_texts
from atlas_builder.describe import ablation, results
from atlas_builder.describe.results import Described
from atlas_builder.describe.run import describe
from atlas_builder.describe.token_shares import window_tokens
from atlas_builder.files import Store, mark_finished, write_json
from atlas_builder.pipeline.fingerprints import stage_sources
from atlas_builder.pipeline.stages import STAGES
from atlas_builder.progress import Progress
from atlas_builder.workspace import workers
from tests.benchmarks.generated_layer import Layer, Text

_RANK = 64  # width of made-up output weights: logit effects only need to look like some
_CHARACTERS = 12  # of text to train the tokenizer on, for each token of the corpus


@dataclass(frozen=True)
class Shape:
    """What is generated; by default GPT-2 small's."""

    layers: int = 12
    units: int = 3072
    width: int = 768
    vocabulary: int = 50_257
    tokens: int = 1_000_000
    behaviours: float = 3.0
    """Mean number of a unit's behaviours, roughly."""
    seed: int = 0


def configuration(shape: Shape, **site: object) -> Configuration:
    """What such an atlas is built with: defaults, for GitHub Pages unless `site` says otherwise."""
    return validate(
        {
            "atlas": {
                "id": "generated",
                "title": "A generated atlas",
                "authors": [{"name": "Nobody, Ann"}],
                "url": "https://example.org/generated",
                "date": "2026-01-02",
            },
            "model": {"name": "generated"},
            "corpus": {"source": "stdlib", "max_tokens": shape.tokens},
            "site": {"host": "github-pages", **site},
        }
    )


def generate(shape: Shape, settings: Configuration, work: Path, executor: Executor, progress: Progress) -> None:
    """Write collect, cluster, describe and link into a work folder, so that a build there goes on with publish."""
    store, sources = Store(work), stage_sources(settings)
    with store.making("collect", sources["collect"]) as collect, store.making("cluster", sources["cluster"]) as cluster:
        with progress.task("text", total=None, unit="tokens") as advance:
            _write_corpus(shape, settings, collect)
            advance(shape.tokens)
        layers = [
            Layer(number, shape.units, shape.behaviours, shape.tokens, settings.examples, shape.seed)
            for number in range(shape.layers)
        ]
        with progress.task("plant", total=shape.layers, unit="layers") as advance:
            for task in [executor.submit(_write_layer, layer, collect, cluster) for layer in layers]:
                task.result()
                advance(1)
    collected = Collected(store.folder("collect"))
    with store.making("describe", sources["describe"]) as folder:
        describe(collected, store.folder("cluster"), settings.examples, folder, executor, progress)
        if settings.describe.importance == "central":
            _write_importance(collected, store.folder("cluster"), settings, folder, shape.seed)
    with store.making("link", sources["link"]) as folder:
        _write_links(collected, store, settings, folder, shape.seed)


def restamp(settings: Configuration, work: Path) -> None:
    """Take what lies in a work folder for what today's code would make, so that only publish is run."""
    store, sources = Store(work), stage_sources(settings)
    for stage in STAGES[:-1]:
        mark_finished(store.folder(stage), sources[stage])


def _write_corpus(shape: Shape, settings: Configuration, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    from atlas_builder.demo.train import BOS, train_tokenizer

    texts = [document.text for document in documents.documents(settings.corpus)]
    ends = np.cumsum([len(text) for text in texts])
    enough = int(np.searchsorted(ends, _CHARACTERS * shape.tokens)) + 1  # a small atlas need not read it all
    tokenizer = train_tokenizer(texts[:enough], shape.vocabulary)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)
    vocabulary = token_texts(wrapped)
    read = contexts.write_contexts(
        documents.documents(settings.corpus),
        lambda batch: [encoding.ids for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)],
        folder / "contexts",
        context=settings.corpus.context,
        bos=tokenizer.token_to_id(BOS),
        max_tokens=shape.tokens,
    )
    if read.token_count < shape.tokens:
        raise SystemExit(f"the standard library has {read.token_count:,} tokens: ask for no more.")
    write_json(folder / "tokens.json", vocabulary)
    chance = np.random.default_rng(shape.seed)
    np.save(folder / "unembedding.npy", chance.normal(size=(_RANK, len(vocabulary))).astype(np.float32))
    for layer in range(shape.layers):
        (folder / f"L{layer}").mkdir()
        np.save(folder / f"L{layer}" / "write.npy", chance.normal(0, 0.02, (shape.units, _RANK)).astype(np.float32))
    facts = {
        "architecture": "GPT2LMHeadModel",
        "activation": "gelu_new",
        "kind": "mlp",
        "layers": shape.layers,
        "width": shape.width,
        "vocabulary": len(vocabulary),
        "bos_token": BOS,
        "mask_token": BOS,
        "corpus_sha256": read.sha256,
        "documents": len(read.names),
        "contexts": len(read),
        "tokens": read.token_count,
        "lines_skipped": 0,
        "layers_read": list(range(shape.layers)),
        "units": [{"layer": layer, "units": shape.units} for layer in range(shape.layers)],
    }
    write_json(folder / "facts.json", facts)


def _write_layer(layer: Layer, collect: Path, cluster: Path) -> None:
    collected = Collected(collect)
    layer.write(Text(collected.contexts, collected.token_texts), collect, cluster)


def _write_importance(collected: Collected, clustered: Path, settings: Configuration, folder: Path, seed: int) -> None:
    """Importance that falls off with the distance from the key token, whose own is about 1."""
    before = settings.examples.window[0]
    contexts = collected.contexts
    fall = np.append(0.01 + 0.3 * np.exp(-np.arange(before, 0, -1) / 2), 1.03)
    for layer, places, found in ablation.wanted_examples(collected, clustered, settings):
        chance = np.random.default_rng([seed, 1, layer])
        values = (fall + chance.normal(0, 0.07, (len(places), before + 1))).astype(np.float32)
        tokens = window_tokens(contexts.tokens, contexts.starts, found["context"], found["position"], before, 0)
        results.save_importance(
            results.importance_file(folder, layer), places, np.where(tokens >= 0, values, np.float32(np.nan))
        )


def _write_links(collected: Collected, store: Store, settings: Configuration, folder: Path, seed: int) -> None:
    """Behaviours of one main token are neighbours, some of them, and lie together on the map."""
    chance = np.random.default_rng([seed, 2])
    address, main = [], []
    for layer in collected.layers:
        found = Clustered(layer.layer, store.folder("cluster")).behaviours
        address.append(np.stack([np.full(len(found), layer.layer), found["unit"], found["id"]], axis=1))
        described = Described(layer.layer, store.folder("describe")).behaviours
        main += [behaviour["tokens"][0][0] if behaviour["tokens"] else -1 for behaviour in described]
    where, token = np.concatenate(address).astype(np.int32), np.array(main)
    neighbours = _neighbours(where, token, settings.link.neighbours, chance)
    similar = np.sort(chance.beta(6, 4, neighbours.shape), axis=1)[:, ::-1].astype(np.float32)
    wiring = chance.normal(0, 0.05, neighbours.shape).astype(np.float32)
    within = where[neighbours, 0] == where[:, :1]  # units of one layer are not wired to each other
    np.save(folder / "address.npy", where)
    np.save(folder / "neighbours.npy", neighbours)
    np.save(folder / "similarities.npy", np.where(neighbours >= 0, similar, np.float32(np.nan)))
    np.save(folder / "wiring.npy", np.where((neighbours >= 0) & ~within, wiring, np.float32(np.nan)))
    np.save(folder / "thresholds.npy", np.full((len(address), len(address)), 0.5))
    centre = chance.random((int(token.max(initial=0)) + 2, 2))
    spots = centre[token] + chance.normal(0, 0.01, (len(token), 2))
    np.save(folder / "map.npy", spots.clip(0, 1).astype(np.float32))


def _neighbours(where: NDArray[np.int32], token: NDArray[np.int64], most: int, chance: Generator) -> NDArray[np.int32]:
    """For each behaviour up to `most` others of its main token and of other units: (behaviours, most), −1 for none."""
    total = len(token)
    order = np.lexsort([chance.random(total), token])
    place = np.empty(total, np.int64)
    place[order] = np.arange(total)
    steps = np.array([step * sign for step in range(1, most + 1) for sign in (1, -1)][:most], dtype=np.int64)
    at = place[:, None] + steps  # (behaviours, most)
    inside = (at >= 0) & (at < total)
    other = order[np.where(inside, at, 0)]
    unit = where[:, 0].astype(np.int64) << 32 | where[:, 1]
    wanted = chance.integers(0, most + 1, total)[:, None] > np.arange(most)
    good = inside & wanted & (token[other] == token[:, None]) & (unit[other] != unit[:, None])
    first = np.argsort(~good, axis=1, kind="stable")
    return np.take_along_axis(np.where(good, other, -1), first, axis=1).astype(np.int32)


def main(work: str, layers: int = Shape.layers, units: int = Shape.units) -> None:
    """Generate into a folder, over two processes."""
    shape = Shape(layers=layers, units=units)
    with workers(None, 2) as pool:
        generate(shape, configuration(shape), Path(work), pool, Progress())


if __name__ == "__main__":
    main(sys.argv[1], *(int(count) for count in sys.argv[2:4]))
