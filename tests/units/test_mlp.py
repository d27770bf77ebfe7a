from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from atlas_builder.config import ModelSettings
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import language_model
from atlas_builder.units.mlp import MLPUnits
from tests.support import reference


@pytest.fixture(params=["gpt2_folder", "llama_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def _visited(folder: Path, layers: Any, tokens: torch.Tensor) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    units = MLPUnits(language_model.load_model(ModelSettings(name=str(folder))).bridge, layers)
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def visit(layer: int, inputs: torch.Tensor, activations: torch.Tensor) -> None:
        assert layer not in seen
        seen[layer] = (inputs.numpy().copy(), activations.numpy().copy())

    units.run(tokens, visit)
    return seen


def test_inputs_and_activations_are_those_of_the_model_itself(folder: Path) -> None:
    tokens = torch.tensor([[0, 5, 99, 1000, 7]])
    seen = _visited(folder, "all", tokens)
    slow = reference.SlowModel(folder)
    assert list(seen) == [0, 1]
    for layer, (inputs, activations) in seen.items():
        found: dict[str, torch.Tensor] = {}
        slow.mlps[layer].register_forward_pre_hook(lambda _, given, found=found: found.update(x=given[0]))
        slow.outs[layer].register_forward_pre_hook(lambda _, given, found=found: found.update(a=given[0]))
        with torch.no_grad():
            slow.model(tokens)
        np.testing.assert_allclose(inputs, found["x"], atol=1e-5)
        np.testing.assert_allclose(activations, found["a"], atol=1e-4)


def test_a_plain_neurons_activation_follows_from_its_embedding(gpt2_folder: Path) -> None:
    loaded = language_model.load_model(ModelSettings(name=str(gpt2_folder)))
    units = MLPUnits(loaded.bridge)
    inputs, activations = _visited(gpt2_folder, [1], torch.tensor([[0, 3, 4, 5]]))[1]
    read = units.read_weights(1).numpy()  # (1, units, width)
    bias = loaded.bridge.blocks[1].mlp.b_in.detach().numpy()
    pre = (inputs[0, :, None] * read[0]).sum(-1) + bias
    wanted = torch.nn.functional.gelu(torch.from_numpy(pre), approximate="tanh")
    np.testing.assert_allclose(activations[0], wanted, atol=1e-4)


def test_a_gated_neurons_activation_follows_from_its_embedding(llama_folder: Path) -> None:
    units = MLPUnits(language_model.load_model(ModelSettings(name=str(llama_folder))).bridge)
    inputs, activations = _visited(llama_folder, [0], torch.tensor([[0, 3, 4, 5]]))[0]
    gate, linear = (torch.from_numpy((inputs[0, :, None] * part).sum(-1)) for part in units.read_weights(0).numpy())
    np.testing.assert_allclose(activations[0], torch.nn.functional.silu(gate) * linear, atol=1e-4)


def test_only_the_layers_asked_for_are_read_and_nothing_behind_them_runs(gpt2_folder: Path) -> None:
    assert list(_visited(gpt2_folder, [0], torch.tensor([[0, 1]]))) == [0]
    bridge = language_model.load_model(ModelSettings(name=str(gpt2_folder))).bridge
    ran = []
    bridge.blocks[1].register_forward_hook(lambda *_: ran.append(1))
    MLPUnits(bridge, [0]).run(torch.tensor([[0, 1]]), lambda *_: None)
    assert not ran


def test_a_layer_that_does_not_exist_is_named(gpt2_folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="layer 7 does not exist: the model has layers 0 to 1"):
        MLPUnits(language_model.load_model(ModelSettings(name=str(gpt2_folder))).bridge, [0, 7])


def test_an_architecture_without_a_readable_mlp_is_refused_with_the_missing_hooks() -> None:
    bare = SimpleNamespace(
        cfg=SimpleNamespace(n_layers=1, architecture="MambaForCausalLM"), hook_dict={}, blocks=[SimpleNamespace()]
    )
    with pytest.raises(ModelError, match=r"blocks\.0\.mlp\.hook_in, blocks\.0\.mlp\.out\.hook_in.* are missing"):
        MLPUnits(bare)
