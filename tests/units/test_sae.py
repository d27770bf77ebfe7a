"""Latents of sparse autoencoders: what each architecture computes, and what does not fit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atlas_builder.config import ModelSettings, UnitSettings
from atlas_builder.config_file import validate
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import language_model, sae
from atlas_builder.models.sae import SAE
from atlas_builder.models.sae_folders import find_saes
from atlas_builder.units.open import load_saes, open_units
from atlas_builder.units.sae import SAEUnits
from tests.support import reference
from tests.support.saes import ARCHITECTURES, LATENTS, WIDTH, an_sae

TOKENS = torch.tensor([[0, 5, 99, 1000, 7]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sae.save_sae(an_sae("standard"), tmp_path / "sae")
    return tmp_path / "sae"


def _slow(found: SAE, x: np.ndarray) -> np.ndarray:
    """The latents of one input, one by one, as the papers and SAELens define them."""
    weights = {name: tensor.double().numpy() for name, tensor in found.tensors.items()}
    if found.normalization == "layer_norm":
        x = (x - x.mean()) / (x.std(ddof=1) + 1e-5)
    if found.b_dec_first:
        x = x - weights["b_dec"]
    out = np.zeros(LATENTS)
    for latent in range(LATENTS):
        linear = float(x @ weights["W_enc"][:, latent])
        if found.architecture == "gated":
            scaled = linear * np.exp(weights["r_mag"][latent]) + weights["b_mag"][latent]
            out[latent] = max(scaled, 0) if linear + weights["b_gate"][latent] > 0 else 0
            continue
        linear += weights["b_enc"][latent]
        if found.by_decoder_norm:
            linear *= np.linalg.norm(weights["W_dec"][latent])
        threshold = np.broadcast_to(weights.get("threshold", 0.0), LATENTS)[latent]
        out[latent] = linear if linear > max(threshold, 0) else 0
    if found.architecture == "topk":
        out[np.argsort(-out)[found.k :]] = 0
    return out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("settings", [{}, {"b_dec_first": False, "normalization": "layer_norm"}])
def test_latents_are_what_the_architecture_says(architecture: str, settings: dict[str, Any], tmp_path: Path) -> None:
    if architecture == "topk" and settings:
        settings = {**settings, "by_decoder_norm": True}
    sae.save_sae(an_sae(architecture, **settings), tmp_path)
    found = sae.load_sae(tmp_path)
    inputs = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(3))
    latents = found.encode(found.read(inputs)).numpy()
    for x, row in zip(inputs.double().numpy(), latents, strict=True):
        np.testing.assert_allclose(row, _slow(found, x), rtol=1e-4, atol=1e-4)
    assert 0 < (latents > 0).mean() < 1


@pytest.mark.parametrize(
    "place", ["mlp.hook_in", "hook_mlp_out", "hook_resid_pre", "hook_resid_mid", "hook_resid_post"]
)
def test_latents_read_what_stands_at_their_place(gpt2_folder: Path, place: str) -> None:
    found = an_sae("standard", 1, place)
    units = SAEUnits(language_model.load_model(ModelSettings(name=str(gpt2_folder))).bridge, [found])
    seen = {}
    units.run(TOKENS, lambda layer, read, latents: seen.update({layer: (read.clone(), latents.clone())}))
    slow = reference.SlowModel(gpt2_folder)
    block, at = slow.model.transformer.h[1], {}

    def before(name: str) -> Any:
        return lambda module, given: at.update({name: given[0].detach().clone()})

    def after(name: str) -> Any:
        return lambda module, given, out: at.update(
            {name: (out[0] if isinstance(out, tuple) else out).detach().clone()}
        )

    block.register_forward_pre_hook(before("hook_resid_pre"))
    block.register_forward_hook(after("hook_resid_post"))
    block.ln_2.register_forward_pre_hook(before("hook_resid_mid"))
    block.mlp.register_forward_pre_hook(before("mlp.hook_in"))
    block.mlp.register_forward_hook(after("hook_mlp_out"))
    with torch.no_grad():
        slow.model(TOKENS)
    read, latents = seen[1]
    torch.testing.assert_close(read, at[place] - found.tensors["b_dec"], atol=1e-4, rtol=1e-4)
    for x, row in zip(at[place][0].double().numpy(), latents[0].numpy(), strict=True):
        np.testing.assert_allclose(row, _slow(found, x), rtol=1e-3, atol=1e-3)
    assert units.read_weights(1).shape == (1, LATENTS, WIDTH)
    # The embedding's sum and the bias are the pre-activation.
    pre = (read[0, :, None] * units.read_weights(1)[0]).sum(-1) + found.tensors["b_enc"]
    torch.testing.assert_close(pre.relu(), latents[0], atol=1e-4, rtol=1e-4)


def test_saes_of_several_layers_are_read_in_one_run(gpt2_folder: Path, tmp_path: Path) -> None:
    for layer in (1, 0):
        sae.save_sae(an_sae("jumprelu", layer), tmp_path / f"layer {layer}")
    made = {"kind": "sae", "path": str(tmp_path)}
    settings = validate(
        {"model": {"name": str(gpt2_folder)}, "corpus": {"source": "stdlib", "context": 16}, "units": made}
    )
    units = open_units(language_model.load_model(settings.model), settings)
    assert list(units.layers) == [0, 1]
    seen: list[int] = []
    units.run(TOKENS, lambda layer, *_: seen.append(layer))
    assert seen == [0, 1]


def _refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        sae.load_sae(folder)
    assert "\n" not in str(caught.value)


def test_what_is_no_sae_is_refused_in_a_sentence(folder: Path) -> None:
    cfg = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "sae_weights.safetensors")

    def now(tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
        (folder / "cfg.json").write_text(json.dumps({**cfg, **changes}), encoding="utf-8")
        save_file(weights if tensors is None else tensors, folder / "sae_weights.safetensors")

    now(architecture="temporal")
    _refused(folder, "architecture 'temporal' is unknown: it must be one of standard, gated")
    now(architecture="gated")
    _refused(folder, "lacks the tensor b_gate and 2 more, which architecture gated requires")
    now(architecture="topk", k=0)
    _refused(folder, "k is 0, with 40 latents: set k")
    now(metadata={"hook_name": "blocks.0.attn.hook_z"})
    _refused(folder, r"hook_name 'blocks.0.attn.hook_z' is not supported: it must be one of blocks.N.ln2")
    now(normalize_activations="expected_average_only_in")
    _refused(folder, "normalize_activations in cfg.json is .expected_average_only_in.: fold it into the weights first")
    now(activation_fn="tanh-relu")
    _refused(folder, "activation_fn in cfg.json is .tanh-relu., which architecture .standard. does not have")
    now({**weights, "W_dec": weights["W_dec"][:, :-1].contiguous()})
    _refused(folder, r"W_dec has the shape \(40, 15\), but W_enc requires \(40, 16\)")
    (folder / "sae_weights.safetensors").unlink()
    _refused(folder, "cannot be read .*: it requires cfg.json and sae_weights.safetensors")


@pytest.mark.parametrize("value", [["x"], {"a": 1}, float("inf"), float("nan"), "9" * 9999, "\ud800\u202e\n"])
def test_settings_of_another_type_are_refused_in_a_short_sentence(value: object, folder: Path) -> None:
    whole = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    for key in ("architecture", "k", "d_in", "normalize_activations", "apply_b_dec_to_input", "hook_name"):
        changed = {**whole, "metadata": {**whole["metadata"], key: value}}
        (folder / "cfg.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ModelError) as caught:
            sae.load_sae(folder)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) <= 300


def test_an_sae_has_all_its_tensors_no_other_and_only_numbers(folder: Path) -> None:
    file = folder / "sae_weights.safetensors"
    weights = load_file(file)
    for tensors, match in (
        ({**weights, "more": torch.ones(3)}, "contains the tensor more, which architecture standard does not have"),
        ({name: tensor for name, tensor in weights.items() if name != "b_dec"}, "lacks the tensor b_dec"),
        ({**weights, "b_dec": torch.full((WIDTH,), float("nan"))}, "b_dec contain NaN or infinity"),
        ({**weights, "W_dec": weights["W_dec"].int()}, "W_dec holds whole numbers"),
    ):
        save_file(tensors, file)
        _refused(folder, match)
    save_file({**weights, "scaling_factor": torch.ones(LATENTS)}, file)
    assert sae.load_sae(folder).latents == LATENTS


def test_an_sae_of_another_model_or_layer_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    bridge = language_model.load_model(ModelSettings(name=str(gpt2_folder))).bridge
    with pytest.raises(ConfigurationError, match="an SAE reads layer 7, but the model has layers 0 to 1"):
        SAEUnits(bridge, [an_sae("standard", 7)])
    wide = an_sae("standard")
    wide.tensors["W_enc"] = torch.randn(17, LATENTS)
    with pytest.raises(ConfigurationError, match="has width 17, but the model has width 16"):
        SAEUnits(bridge, [wide])
    with pytest.raises(ConfigurationError, match="two SAEs read layer 1"):
        SAEUnits(bridge, [an_sae("standard"), an_sae("gated")])
    with pytest.raises(ConfigurationError, match="there is no SAE of layer 0"):
        SAEUnits(bridge, [an_sae("standard")], [0, 1])
    sae.save_sae(an_sae("standard", model="gpt2-small"), tmp_path / "saes" / "one")
    for name, match in (
        ("demo", "was trained on gpt2-small, not on demo: change model.name"),
        (str(gpt2_folder), None),
    ):
        settings = validate({
            "model": {"name": name}, "corpus": {"source": "stdlib", "context": 32},
            "units": {"kind": "sae", "path": str(tmp_path / "saes")},
        })  # fmt: skip
        loaded = language_model.load_model(settings.model)
        if match is None:  # a folder may hold any model
            assert open_units(loaded, settings).kind == "sae"
        else:
            with pytest.raises(ConfigurationError, match=match):
                open_units(loaded, settings)
    with pytest.raises(ConfigurationError, match="contains no SAE"):
        find_saes(tmp_path)


def test_a_configuration_says_where_its_saes_are() -> None:
    whole = {"model": {"name": "demo"}, "corpus": {"source": "stdlib"}}
    with pytest.raises(ConfigurationError, match=r"kind sae requires units\.path, or units\.release and units\.id"):
        validate({**whole, "units": {"kind": "sae"}})
    with pytest.raises(ConfigurationError, match="kind mlp has no path, release or id"):
        validate({**whole, "units": {"path": "somewhere"}})


def test_a_release_that_only_saelens_knows_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(ConfigurationError, match=r"is not a repository like owner/name; to look it up .* install"):
        load_saes(UnitSettings(kind="sae", release="gpt2-small-res-jb", id="blocks.8.hook_resid_pre"))


def test_a_repository_on_the_hub_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    sae.save_sae(an_sae("standard"), hub / "layer_1")
    asked: list[tuple[str, list[str]]] = []

    def fetch(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    (found,) = load_saes(UnitSettings(kind="sae", release="somebody/saes", id="layer_1"))
    assert found.latents == LATENTS
    assert asked == [("somebody/saes", ["layer_1/*"])]
