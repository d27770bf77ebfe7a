"""The rotate stage on small models: what it finds, in shards, after a kill, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from atlas_builder.config import Configuration
from atlas_builder.config_file import validate
from atlas_builder.corpus.contexts import read_contexts
from atlas_builder.errors import AtlasError, ConfigurationError, CorpusError, ModelError
from atlas_builder.models import language_model
from atlas_builder.progress import Progress
from atlas_builder.rotate import run as stage
from atlas_builder.rotate.gradients import random_signs
from atlas_builder.rotate.plan import BLOCKS, RotationPlan
from atlas_builder.rotate.results import Rotation
from atlas_builder.rotate.run import block_file, merge_rotations, rotate
from atlas_builder.units.mlp import MLPUnits

QUIET = Progress(quiet=True)


def settings(model: Path, text: Path, basis: str = "global", **more: Any) -> Configuration:
    return validate(
        {
            "model": {"name": str(model)},
            "corpus": {"source": "jsonl", "path": str(text), "context": 12},
            "units": {"kind": "basis", "basis": basis},
            **more,
        }
    )


def rotated(config: Configuration, folder: Path, shards: int = 1) -> Rotation:
    model = language_model.load_model(config.model)
    units = MLPUnits(model.bridge, config.units.layers)
    folders = [folder / str(number) for number in range(1, shards + 1)]
    for number, shard in enumerate(folders, start=1):
        rotate(model, units, config, shard, QUIET, (number, shards))
    merge_rotations(folders, config, folder, QUIET)
    return Rotation(folder)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_directions_are_those_of_moments_taken_token_by_token(
    tiny_model: Callable[[str], Path], jsonl: Path, tmp_path: Path, family: str
) -> None:
    config = settings(tiny_model(family), jsonl, interaction={"max_tokens": None})
    found = rotated(config, tmp_path)
    read = read_contexts(tmp_path / "1" / "contexts")
    means, squares, pulled = slow_moments(tiny_model(family), family, read)
    assert found.facts["tokens"] == read.token_count
    for layer in found.layers:
        one = found.layer(layer)
        np.testing.assert_allclose(one.mean, means[layer], atol=1e-5)
        covariance = squares[layer] - np.outer(means[layer], means[layer])
        np.testing.assert_allclose(one.covariance, covariance, atol=1e-5)
        # CᵀGC = Λ and C⁺MC⁺ᵀ = 1.
        lambdas = one.importance
        np.testing.assert_allclose(one.encode.T @ covariance @ one.encode, np.diag(lambdas), atol=1e-4 * lambdas[0])
        np.testing.assert_allclose(one.decode @ pulled[layer] @ one.decode.T, np.eye(len(lambdas)), atol=2e-3)
        np.testing.assert_allclose(one.variance, lambdas, rtol=1e-9)


def slow_moments(folder: Path, family: str, read: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Means, mean squares and M of each layer by hooks on transformers' own model, a context at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    mlps = {
        "gpt2": lambda: [block.mlp for block in model.transformer.h],
        "llama": lambda: [block.mlp for block in model.model.layers],
        "gpt_neox": lambda: [block.mlp for block in model.gpt_neox.layers],
    }[family]()
    seen: dict[int, torch.Tensor] = {}
    for layer, mlp in enumerate(mlps):
        mlp.register_forward_pre_hook(lambda _, given, layer=layer: seen.update({layer: given[0]}))
    width, head = model.config.hidden_size, int(read.bos is not None)
    sums = [(np.zeros(width), np.zeros((width, width)), np.zeros((width, width))) for _ in mlps]
    for number in range(len(read)):
        logits = model(torch.from_numpy(read.stack(np.array([number])))).logits
        centred = logits - logits.mean(dim=-1, keepdim=True)
        signs = torch.from_numpy(random_signs(number, *logits.shape[1:])).float()
        gradients = torch.autograd.grad((centred[0, head:] * signs[head:]).sum(), [seen[layer] for layer in range(2)])
        for layer, gradient in enumerate(gradients):
            for x, g in zip(seen[layer][0, head:].detach().numpy(), gradient[0, head:].numpy(), strict=True):
                sums[layer][0][:] += x
                sums[layer][1][:] += np.outer(x, x)
                sums[layer][2][:] += np.outer(g, g)
    tokens = read.token_count
    return tuple([one[place] / tokens for one in sums] for place in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("basis", ["global", "principal", "random", "local"])
def test_shards_and_a_stop_change_no_byte(
    gpt2_folder: Path, jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, basis: str
) -> None:
    config = settings(gpt2_folder, jsonl, basis)
    whole = rotated(config, tmp_path / "whole").folder
    content = (whole / "rotation.safetensors").read_bytes()
    if basis == "local":
        with pytest.raises(ConfigurationError, match="has no shards"):
            rotated(config, tmp_path / "shards", shards=7)
    else:
        shards = rotated(config, tmp_path / "shards", shards=7).folder
        assert (shards / "rotation.safetensors").read_bytes() == content

    saved = 0

    def save(*given: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 20:  # between the two files of the tenth block
            raise KeyboardInterrupt
        original(*given)

    original = stage._save
    monkeypatch.setattr(stage, "_save", save)
    with pytest.raises(KeyboardInterrupt):
        rotated(config, tmp_path / "stopped")
    stopped = sum(block_file(tmp_path / "stopped" / "1", block).exists() for block in range(BLOCKS))
    assert stopped == 9
    assert (rotated(config, tmp_path / "stopped").folder / "rotation.safetensors").read_bytes() == content


def test_a_local_basis_has_its_own_effect_on_the_next_directions(
    gpt2_folder: Path, jsonl: Path, tmp_path: Path
) -> None:
    config = settings(gpt2_folder, jsonl, "local", interaction={"max_tokens": None})
    found = rotated(config, tmp_path)
    last, first = found.layer(1), found.layer(0)
    sums = [load_file(tmp_path / "1" / f"pulled-L0-{block:02}.safetensors")["pulled"] for block in range(BLOCKS)]
    pulled = torch.stack(sums).sum(dim=0).numpy() / found.facts["tokens"]
    np.testing.assert_allclose(first.decode @ pulled @ first.decode.T, np.eye(len(first.importance)), atol=1e-6)
    # The last layer's is the global one.
    other = rotated(settings(gpt2_folder, jsonl, interaction={"max_tokens": None}), tmp_path / "global")
    np.testing.assert_array_equal(other.layer(1).encode, last.encode)
    assert not np.allclose(other.layer(0).importance[:5], first.importance[:5], rtol=0.01)


def test_random_directions_are_whitened_and_share_all_importance(
    gpt2_folder: Path, jsonl: Path, tmp_path: Path
) -> None:
    kinds = {
        kind: rotated(settings(gpt2_folder, jsonl, kind), tmp_path / kind) for kind in ("global", "random", "principal")
    }
    for layer in (0, 1):
        one = kinds["random"].layer(layer)
        np.testing.assert_allclose(one.encode.T @ one.covariance @ one.encode, np.eye(len(one.encode.T)), atol=1e-6)
        totals = [kinds[kind].layer(layer).importance.sum() for kind in kinds]
        np.testing.assert_allclose(totals, totals[0], rtol=1e-4)


def test_the_mean_effect_is_the_mean_of_small_steps_through_the_mlp(
    llama_folder: Path, jsonl: Path, tmp_path: Path
) -> None:
    found = rotated(settings(llama_folder, jsonl, interaction={"max_tokens": None}), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(llama_folder).double().eval()
    read, seen = read_contexts(tmp_path / "1" / "contexts"), []
    mlp = model.model.layers[1].mlp
    hook = mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0][0, int(read.bos is not None) :]))
    with torch.no_grad():
        for number in range(len(read)):
            model(torch.from_numpy(read.stack(np.array([number]))))
        hook.remove()
        inputs, step = torch.cat(seen), 1e-4
        for direction in (0, 3):
            move = step * torch.from_numpy(found.layer(1).decode[direction])
            change = (mlp(inputs + move) - mlp(inputs - move)).mean(dim=0) / (2 * step)
            np.testing.assert_allclose(found.layer(1).effect[direction], change.numpy(), atol=1e-6)


def test_halves_are_of_whole_documents_and_contexts_are_spread_evenly(
    gpt2_folder: Path, jsonl: Path, tmp_path: Path
) -> None:
    config = settings(gpt2_folder, jsonl)
    rotated(config, tmp_path)
    read = read_contexts(tmp_path / "1" / "contexts")
    plan = RotationPlan(read, read.token_count // 3)
    assert read.token_count // 4 < plan.tokens <= read.token_count // 3 + 12
    assert np.diff(plan.contexts).max() - np.diff(plan.contexts).min() <= 1
    half = RotationPlan(read, None).block % 2
    documents = [set(read.document[half == side]) for side in (0, 1)]
    assert not documents[0] & documents[1]
    sizes = [int(np.diff(read.starts)[half == side].sum()) for side in (0, 1)]
    assert abs(sizes[0] - sizes[1]) < 0.1 * read.token_count


def test_too_few_tokens_for_the_width_are_said(gpt2_folder: Path, jsonl: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"width 16 require 64 tokens of text, but [0-9]+ are read"):
        rotated(settings(gpt2_folder, jsonl, interaction={"max_tokens": 40}), tmp_path)


def test_a_model_that_cannot_be_differentiated_is_refused(
    gpt2_folder: Path, jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(gpt2_folder, jsonl)
    model = language_model.load_model(config.model)
    units = MLPUnits(model.bridge)
    # As weights of integers would do.
    block = model.bridge.original_model.transformer.h[1]
    block.register_forward_hook(
        lambda module, given, out: out.detach() if torch.is_tensor(out) else (out[0].detach(), *out[1:])
    )
    with pytest.raises(ModelError, match="cannot be differentiated"):
        rotate(model, units, config, tmp_path, QUIET)


def test_a_layer_that_never_varies_has_no_directions(gpt2_folder: Path, jsonl: Path, tmp_path: Path) -> None:
    config = settings(gpt2_folder, jsonl)
    model = language_model.load_model(config.model)
    with torch.no_grad():
        model.bridge.original_model.transformer.h[1].ln_2.weight.zero_()
    rotate(model, MLPUnits(model.bridge), config, tmp_path / "1", QUIET)
    with pytest.raises(AtlasError, match="layer 1: no activation varies"):
        merge_rotations([tmp_path / "1"], config, tmp_path, QUIET)
