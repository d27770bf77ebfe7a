"""The rotate stage: sums over a part of the text in blocks, and directions from them.

Each block of contexts is summed by itself and its file kept, so that a stopped run goes on with the next
block, shards take blocks in turn, and sums are the same however many shards there were.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from atlas_builder.config import Configuration
from atlas_builder.corpus import contexts, documents
from atlas_builder.corpus.attributes import check_attributes
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.errors import ActivationError, ConfigurationError, CorpusError
from atlas_builder.files import read_json, write_json
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.memory import in_halves, keep_memory
from atlas_builder.models.precision import DTYPES, epsilon
from atlas_builder.progress import Progress
from atlas_builder.rotate.degeneracy import DegeneracySums, degeneracy_of
from atlas_builder.rotate.directions import arrays_of, find_basis
from atlas_builder.rotate.gradients import GradientRun, Target
from atlas_builder.rotate.moments import BlockMoments, MomentSums, moments_of_blocks
from atlas_builder.rotate.plan import BLOCKS, RotationPlan
from atlas_builder.rotate.results import FACTS, ROTATION_FILE
from atlas_builder.units.mlp import MLPUnits

_TOKENS_PER_DIMENSION = 4
_LOGITS_AT_ONCE = 1 << 25
_FACTS = "facts.json"


def rotate(
    model: LanguageModel,
    units: MLPUnits,
    config: Configuration,
    folder: Path,
    progress: Progress,
    shard: tuple[int, int] = (1, 1),
    prepared: Path | None = None,
) -> None:
    """Sum the blocks of a shard, (number, of), and write to `folder` what `merge_rotations` needs.

    What does not depend on the shard is read from `prepared`, where `prepare_rotation` wrote it, and
    else made here. Raises `CorpusError` where the text has too few tokens for the model's width, `ModelError`
    where the model cannot be differentiated, `ActivationError` for NaN or infinity, and
    `ConfigurationError` for shards of a local basis, whose layers are found one after the other.
    """
    number, of = shard
    if config.units.basis == "local" and of > 1:
        raise ConfigurationError(
            "units.basis: a local basis is found layer by layer, from the last on, so that its pass has no shards: run "
            "build --until rotate without --shard first."
        )
    whole = prepared or folder
    if not (whole / _FACTS).exists():
        prepare_rotation(model, units, config, whole, progress)
    folder.mkdir(parents=True, exist_ok=True)
    read, facts = contexts.read_contexts(whole / "contexts"), read_json(whole / _FACTS)
    plan = RotationPlan(read, config.interaction.max_tokens)
    run = _Run(model, units, config, read, plan, folder, progress)
    keep_memory()
    blocks = [block for place, block in enumerate(range(BLOCKS)) if place % of == number - 1]
    name = "rotate" if of == 1 else f"rotate {number}/{of}"
    with progress.task(name, total=sum(run.tokens_of(block) for block in blocks), unit="tokens") as advance:
        for block in blocks:
            run.block(block)
            advance(run.tokens_of(block))
    if config.units.basis == "local":
        run.local(facts, config)


def prepare_rotation(
    model: LanguageModel, units: MLPUnits, config: Configuration, folder: Path, progress: Progress
) -> None:
    """Write what does not depend on the shard: contexts, weights and, last, facts. Raises as `rotate` does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    skipped = documents.Skipped()
    with progress.task("tokenise", total=config.corpus.max_tokens, unit="tokens") as advance:
        read = contexts.write_contexts(
            documents.documents(config.corpus, skipped),
            model.encode,
            folder / "contexts",
            context=config.corpus.context,
            bos=model.bos,
            max_tokens=config.corpus.max_tokens,
            max_documents=config.corpus.max_documents,
            texts=model.token_texts,
            on_tokens=advance,
        )
    check_attributes(config.corpus, read.attributes, skipped.fields)
    plan = RotationPlan(read, config.interaction.max_tokens)
    width = int(model.bridge.cfg.d_model)
    if plan.tokens < (least := _TOKENS_PER_DIMENSION * width):
        raise CorpusError(
            f"directions of width {width:,} require {least:,} tokens of text, but {plan.tokens:,} are read: use a "
            "longer text, or raise corpus.max_tokens and interaction.max_tokens."
        )
    weights: dict[str, Tensor] = {}
    for layer in units.layers:
        weights |= {f"L{layer}.reads": units.read_weights(layer), f"L{layer}.write": units.write_weights(layer)}
    save_file({name: array.contiguous() for name, array in weights.items()}, folder / "weights.safetensors")
    facts = {
        **model.facts,
        "activation": units.activation,
        "layers_biased": [layer for layer in units.layers if units.read_biases(layer) is not None],
        "basis": config.units.basis,
        "layers_read": list(units.layers),
        "corpus_sha256": read.sha256,
        "tokens": plan.tokens,
        "contexts": len(plan.contexts),
    }
    write_json(folder / _FACTS, facts)


class _Run:
    """Runs batches of blocks, in parts where memory is short."""

    def __init__(
        self,
        model: LanguageModel,
        units: MLPUnits,
        config: Configuration,
        read: Contexts,
        plan: RotationPlan,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._units, self._read, self._plan, self._folder, self._progress = units, read, plan, folder, progress
        self._device = config.model.device
        self._gradients = GradientRun(model, units, head=int(read.bos is not None))
        self._at_once = max(1, _LOGITS_AT_ONCE // int(model.bridge.cfg.d_vocab))

    def tokens_of(self, block: int) -> int:
        """Number of tokens of a block."""
        return int(np.diff(self._plan.first_row)[self._plan.block == block].sum())

    def block(self, block: int) -> None:
        """Sum a block in all layers, where that is not done yet."""
        if block_file(self._folder, block).exists():
            return
        sums, degeneracy = {}, {}
        for layer in self._units.layers:
            parts, count, width = self._units.read_weights(layer).shape
            added, activation = self._units.write_weights(layer).shape[1], str(self._units.activation)
            sums[layer] = MomentSums(width, parts, count)
            degeneracy[layer] = DegeneracySums(width, count, parts, added, self._plan.tokens, activation)
        for places in self._plan.batches(block, self._at_once):

            def run(rows: slice, places: NDArray[np.int64] = places) -> None:
                part = places[rows]
                numbers = self._plan.contexts[part]
                for layer, layer_pass in self._gradients.run(self._tokens(numbers), numbers.tolist()).items():
                    sums[layer].add(layer_pass, self._plan.rows(part))
                    degeneracy[layer].add(layer_pass, self._plan.rows(part))

            self._in_parts(run, len(places))
        # The sums last: a block is done where its file is there.
        _save(_by_layer(degeneracy), degeneracy_file(self._folder, block))
        _save(_by_layer(sums), block_file(self._folder, block))

    def local(self, facts: dict[str, Any], config: Configuration) -> None:
        """Replace M by that of the local basis, from the last layer but one backwards: E[Jᵀ P M⁺ P J], CCᵀ = P M⁺ P."""
        tolerance = tolerance_of(config)
        after: Target | None = None
        for layer in reversed(self._units.layers):
            if after is not None:
                self._pull(layer, after)
            whole, *_ = layer_moments([self._folder], layer)
            after = Target(layer, _located(layer, find_basis, "local", whole, layer, tolerance).encode.float())

    def _pull(self, layer: int, after: Target) -> None:
        blocks = [block for block in range(BLOCKS) if not pull_file(self._folder, layer, block).exists()]
        with self._progress.task(
            f"rotate layer {layer}", total=sum(map(self.tokens_of, blocks)), unit="tokens"
        ) as advance:
            for block in blocks:
                width = after.encode.shape[0]
                total = torch.zeros(width, width, dtype=torch.float64)
                for places in self._plan.batches(block, self._at_once):

                    def run(rows: slice, places: NDArray[np.int64] = places, total: Tensor = total) -> None:
                        numbers = self._plan.contexts[places[rows]]
                        found = self._gradients.input_gradients(self._tokens(numbers), numbers.tolist(), layer, after)
                        total.addmm_(found.T, found)

                    self._in_parts(run, len(places))
                _save({"pulled": total}, pull_file(self._folder, layer, block))
                advance(self.tokens_of(block))

    def _tokens(self, numbers: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._read.stack(numbers)).to(self._device)

    def _in_parts(self, run: Any, contexts_at_once: int) -> None:
        refusal = (
            f"one context does not fit into the memory of {self._device} with its gradients: set a smaller "
            "corpus.context."
        )
        in_halves(run, contexts_at_once, self._device, refusal)


def block_file(folder: Path, block: int) -> Path:
    """The sums of a block."""
    return folder / f"block-{block:02}.safetensors"


def degeneracy_file(folder: Path, block: int) -> Path:
    """What degeneracy is read from; it is there before the sums are."""
    return folder / f"degeneracy-{block:02}.safetensors"


def pull_file(folder: Path, layer: int, block: int) -> Path:
    """The sum of a block that takes the place of `pulled` in a local basis."""
    return folder / f"pulled-L{layer}-{block:02}.safetensors"


def layer_moments(folders: Sequence[Path], layer: int) -> tuple[BlockMoments, BlockMoments, BlockMoments]:
    """BlockMoments of the whole text and of its halves, from the blocks in the folders of all shards."""
    prefix, blocks, pulls = f"L{layer}.", [], []
    for block in range(BLOCKS):
        folder = next((one for one in folders if block_file(one, block).exists()), None)
        if folder is None:
            raise ConfigurationError(f"block {block} of the directions is missing: run all shards of the pass again.")
        arrays = load_file(block_file(folder, block))
        blocks.append({name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)})
        if pull_file(folder, layer, block).exists():
            pulls.append(load_file(pull_file(folder, layer, block))["pulled"])
    for sums, pulled in zip(blocks, pulls, strict=False):
        sums["pulled"] = pulled
    return moments_of_blocks(blocks), moments_of_blocks(blocks[0::2]), moments_of_blocks(blocks[1::2])


def _degeneracy(
    folders: Sequence[Path],
    layer: int,
    facts: dict[str, Any],
    whole: BlockMoments,
    importance: Tensor,
    tolerance: float,
) -> dict[str, Any]:
    """The degeneracy of a layer, which alone is read of the blocks."""
    prefix, blocks = f"L{layer}.", []
    for block in range(BLOCKS):
        folder = next(one for one in folders if block_file(one, block).exists())
        with safe_open(degeneracy_file(folder, block), framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118 - no dictionary
            blocks.append({name.removeprefix(prefix): opened.get_tensor(name) for name in names})
    return degeneracy_of(
        blocks,
        whole.covariance,
        whole.pulled,
        importance,
        activation=facts["activation"],
        biases=layer in facts["layers_biased"],
        tolerance=tolerance,
    )


def merge_rotations(
    shards: Sequence[Path], config: Configuration, folder: Path, progress: Progress, prepared: Path | None = None
) -> None:
    """Make the stage's file of the folders of all shards; it does not depend on their number.

    What does not depend on the shard is in `prepared` or, if none is given, in each of them. Raises
    `ConfigurationError` where a shard is missing or of another model or text, and `ActivationError` where a
    layer has no direction.
    """
    wholes = [prepared] if prepared else shards
    records = [read_json(whole / _FACTS) for whole in wholes]
    for shard, other in zip(wholes, records, strict=True):
        if other != records[0]:
            raise ConfigurationError(f"{shard} and {shards[0]} are of different models or texts: run the shards again.")
    facts, weights = records[0], load_file(wholes[0] / "weights.safetensors")
    found: dict[str, Tensor] = {}
    degeneracy: dict[str, Any] = {}
    with progress.task("directions", total=len(facts["layers_read"]), unit="layers") as advance:
        for layer in facts["layers_read"]:
            parts = layer_moments(shards, layer)
            given = parts, layer, tolerance_of(config), weights[f"L{layer}.reads"], weights[f"L{layer}.write"]
            arrays = _located(layer, arrays_of, facts["basis"], *given)
            found |= {f"L{layer}.{name}": array.contiguous() for name, array in arrays.items()}
            counted = facts, parts[0], arrays["importance"], tolerance_of(config)
            degeneracy[str(layer)] = _located(layer, _degeneracy, shards, layer, *counted)
            advance(1)
    said = {name: facts[name] for name in ("basis", "tokens", "contexts")} | {"layers": facts["layers_read"]}
    said["degeneracy"] = degeneracy
    metadata = {FACTS: orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()}
    _save(found, folder / ROTATION_FILE, metadata)


def is_rotated(folder: Path) -> bool:
    """Whether `merge_rotations` has written its file to `folder`."""
    return (folder / ROTATION_FILE).exists()


def tolerance_of(config: Configuration) -> float:
    """Share of the largest eigenvalue below which one counts as zero: no finer than the model's rounding."""
    return max(config.interaction.tolerance, 16 * epsilon(DTYPES[config.model.dtype]) ** 2)


def _located(layer: int, find: Any, *given: Any) -> Any:
    """What `find` finds; its error says of which layer."""
    try:
        return find(*given)
    except ActivationError as error:
        raise ActivationError(f"layer {layer}: {error}") from error


def _by_layer(sums: Mapping[int, MomentSums] | Mapping[int, DegeneracySums]) -> dict[str, Tensor]:
    return {f"L{layer}.{name}": array for layer, one in sums.items() for name, array in one.arrays().items()}


def _save(arrays: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a file that is whole as soon as it has its name."""
    draft = path.with_suffix(".part")
    save_file(arrays, draft, metadata)
    draft.replace(path)
