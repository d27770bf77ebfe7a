"""Transcoders: features of what enters an MLP, written where its output is, and what does not fit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from atlas_builder.comparison import compare
from atlas_builder.config import Configuration, ModelSettings, UnitSettings
from atlas_builder.config_file import validate
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import language_model, sae
from atlas_builder.models.sae import SAE
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.rerun.models import second_reading
from atlas_builder.site.hosting.check import check
from atlas_builder.units.open import load_saes, open_units
from atlas_builder.units.sae import TranscoderUnits
from atlas_builder.verify.run import verify
from tests.support.atlases import Configure
from tests.support.saes import LATENTS, TRANSCODERS, WIDTH, a_transcoder, an_sae

TOKENS = torch.tensor([[0, 5, 99, 1000, 7]])


def drawn(rows: int = 7) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(3))


def _slow(found: SAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activations and output of one input, number by number, as SAELens's `transcoder.py` defines them."""
    weights = {name: tensor.double().numpy() for name, tensor in found.tensors.items()}
    out, made = np.zeros(LATENTS), weights["b_dec"].copy()
    for latent in range(LATENTS):
        before = sum(x[i] * weights["W_enc"][i, latent] for i in range(WIDTH)) + weights["b_enc"][latent]
        threshold = weights["threshold"][latent] if "jumprelu" in found.architecture else 0.0
        out[latent] = max(before, 0.0) if before > threshold else 0.0
        made += out[latent] * weights["W_dec"][latent]
    if "skip" in found.architecture:
        for row in range(WIDTH):
            made[row] += sum(weights["W_skip"][row, i] * x[i] for i in range(WIDTH))
    return out, made


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_features_and_outputs_are_what_the_architecture_says(architecture: str, tmp_path: Path) -> None:
    sae.save_sae(a_transcoder(architecture), tmp_path)
    found = sae.load_sae(tmp_path, "transcoder")
    assert (found.place, found.writes, found.notes) == ("mlp.hook_in", "hook_mlp_out", ())
    inputs = drawn()
    features, made = found.encode(found.read(inputs)).numpy(), found.reconstruct(inputs).numpy()
    for at, x in enumerate(inputs.double().numpy()):
        slow_features, slow_made = _slow(found, x)
        np.testing.assert_allclose(features[at], slow_features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(made[at], slow_made, rtol=1e-4, atol=1e-3)
    assert 0 < (features > 0).mean() < 1


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_numbers_are_those_of_saelens(architecture: str, tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="the extra `sae` is not installed")
    found = a_transcoder(architecture)
    sae.save_sae(found, tmp_path)
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path))
    inputs = drawn(50)
    with torch.no_grad():
        torch.testing.assert_close(found.encode(found.read(inputs)), theirs.encode(inputs), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.reconstruct(inputs), theirs(inputs), atol=1e-3, rtol=1e-3)
    theirs.save_model(tmp_path / "again")
    again = sae.load_sae(tmp_path / "again", "transcoder")
    torch.testing.assert_close(again.reconstruct(inputs), found.reconstruct(inputs))


def test_the_unexplained_fraction_is_zero_for_the_output_itself_and_one_for_its_mean() -> None:
    found, x = a_transcoder("skip_transcoder"), drawn(40)
    target = found.reconstruct(x)
    assert found.unexplained(x, target) == pytest.approx(0, abs=1e-9)
    silent = a_transcoder("transcoder")
    silent.tensors.update(W_dec=torch.zeros(LATENTS, WIDTH), b_dec=target.mean(0))
    assert silent.unexplained(x, target) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("place", ["mlp.hook_in", "ln2.hook_normalized"])
def test_features_read_what_enters_the_mlp_by_both_readings(
    family: str, place: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    found = a_transcoder("jumprelu_skip_transcoder", 1, place)
    sae.save_sae(found, tmp_path / "coder")
    settings = _settings(tiny_model(family), tmp_path / "coder")
    loaded = language_model.load_model(settings.model)
    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    units = open_units(loaded, settings)
    units.run(TOKENS, lambda layer, x, features: seen.update({layer: (x.clone(), features.clone())}))
    inputs, features = second_reading(settings, loaded)(TOKENS, [1])[1]
    torch.testing.assert_close(inputs.float(), seen[1][0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(features.float(), seen[1][1], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(units.write_weights(1), found.tensors["W_dec"])
    if place != "ln2.hook_normalized":
        entering: list[torch.Tensor] = []
        hook = [("blocks.1.mlp.hook_in", lambda tensor, hook: entering.append(tensor.clone()))]
        loaded.bridge.run_with_hooks(TOKENS, fwd_hooks=hook)
        torch.testing.assert_close(seen[1][0], entering[0], atol=1e-4, rtol=1e-4)


def _settings(model: Path | str, coders: Path, kind: str = "transcoder") -> Configuration:
    made = {"kind": kind, "path": str(coders)}
    return validate({"model": {"name": str(model)}, "corpus": {"source": "stdlib", "context": 16}, "units": made})


def _refused(folder: Path, match: str, kind: Any = "transcoder") -> None:
    with pytest.raises(ModelError, match=match) as caught:
        sae.load_sae(folder, kind)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    sae.save_sae(a_transcoder("skip_transcoder"), tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text(encoding="utf-8"))
    weights = load_file(tmp_path / "sae_weights.safetensors")

    def now(tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
        (tmp_path / "cfg.json").write_text(json.dumps({**cfg, **changes}), encoding="utf-8")
        save_file(weights if tensors is None else tensors, tmp_path / "sae_weights.safetensors")

    now(metadata={"hook_name": "blocks.0.hook_resid_pre", "hook_name_out": "blocks.0.hook_mlp_out"})
    _refused(tmp_path, r"'blocks.0.hook_resid_pre' is not supported: it must be one of blocks.N.mlp.hook_in")
    now(metadata={"hook_name": "blocks.0.hook_mlp_in", "hook_name_out": "blocks.0.hook_mlp_out"})
    _refused(tmp_path, r"is hook_mlp_in, in some files .*: set it to mlp\.hook_in where it is the latter")
    now(metadata={"hook_name": "blocks.0.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"})
    _refused(tmp_path, r"hook_name_out in cfg.json is 'blocks.1.hook_mlp_out': a transcoder of layer 0 writes blocks.0")
    now(metadata={"hook_name": "blocks.0.mlp.hook_in"})
    _refused(tmp_path, "hook_name_out in cfg.json is ''")
    now(dtype="int8")
    _refused(tmp_path, "dtype in cfg.json is 'int8', which SAELens does not have")
    now(d_out=17)
    _refused(tmp_path, "d_out is 17, but W_dec has 16")
    now(apply_b_dec_to_input=True)
    _refused(tmp_path, "apply_b_dec_to_input in cfg.json is true, which no transcoder can obey")
    now({name: tensor for name, tensor in weights.items() if name != "W_skip"})
    _refused(tmp_path, "lacks the tensor W_skip, which architecture skip_transcoder requires")
    now({**weights, "W_skip": torch.full((WIDTH, WIDTH), float("nan"))})
    _refused(tmp_path, "W_skip contain NaN or infinity")
    now({**weights, "W_skip": torch.ones(WIDTH, 3)})
    _refused(tmp_path, r"W_skip has the shape \(16, 3\), but W_enc requires \(16, 16\)")
    now(architecture="transcoder")
    _refused(tmp_path, "contains the tensor W_skip, which architecture transcoder does not have")
    now(architecture="jumprelu_clt")
    _refused(tmp_path, "is .jumprelu_clt., and SAELens has no format for cross-layer transcoders")


def test_an_sae_is_no_transcoder_and_the_other_way_round(tmp_path: Path) -> None:
    sae.save_sae(a_transcoder("transcoder"), tmp_path / "transcoder")
    sae.save_sae(an_sae("jumprelu"), tmp_path / "sae")
    _refused(tmp_path / "sae", "architecture jumprelu is not of this kind: set units.kind to sae")
    _refused(
        tmp_path / "transcoder", "architecture transcoder is not of this kind: set units.kind to transcoder", "sae"
    )
    with pytest.raises(ConfigurationError, match=r"kind transcoder requires units\.path, or units\.release"):
        validate({"model": {"name": "demo"}, "corpus": {"source": "stdlib"}, "units": {"kind": "transcoder"}})


def test_a_transcoder_of_another_model_or_layer_is_refused(gpt2_folder: Path) -> None:
    bridge = language_model.load_model(ModelSettings(name=str(gpt2_folder))).bridge
    with pytest.raises(ConfigurationError, match="a transcoder reads layer 7, but the model has layers 0 to 1"):
        TranscoderUnits(bridge, [a_transcoder("transcoder", 7)])
    wide = a_transcoder("transcoder")
    wide.tensors["W_dec"] = torch.randn(LATENTS, 17)
    with pytest.raises(
        ConfigurationError, match="the transcoder of layer 1 writes width 17, but the model has width 16"
    ):
        TranscoderUnits(bridge, [wide])
    with pytest.raises(ConfigurationError, match="two transcoders read layer 1"):
        TranscoderUnits(bridge, [a_transcoder("transcoder"), a_transcoder("skip_transcoder")])


def test_a_transcoder_of_a_release_is_what_saelens_saves_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Release:
        """Stands in for `sae_lens.SAE`, which loads over the network."""

        @staticmethod
        def from_pretrained(release: str, name: str) -> Release:
            asked.append((release, name))
            if name == "nowhere":
                raise ValueError("ID nowhere not found in release")
            return Release()

        def save_model(self, folder: str) -> None:
            sae.save_sae(a_transcoder("jumprelu_transcoder"), Path(folder))

    monkeypatch.setitem(sys.modules, "sae_lens", SimpleNamespace(SAE=Release))
    units = {"kind": "transcoder", "release": "gemma-scope-2b-pt-transcoders", "id": "layer_1"}
    (found,) = load_saes(UnitSettings.model_validate(units))
    assert (found.architecture, found.writes) == ("jumprelu_transcoder", "hook_mlp_out")
    assert asked == [("gemma-scope-2b-pt-transcoders", "layer_1")]
    with pytest.raises(ModelError, match=r"^transcoder nowhere of .* cannot be loaded by SAELens"):
        load_saes(UnitSettings.model_validate({**units, "id": "nowhere"}))


def test_an_atlas_of_transcoders_is_checked_verified_and_compared_with_the_neurons_of_its_layers(
    configure: Configure, pool: Executor, tiny_site: Path, tmp_path: Path
) -> None:
    for layer, architecture in ((0, "skip_transcoder"), (1, "jumprelu_transcoder")):
        sae.save_sae(a_transcoder(architecture, layer), tmp_path / "coders" / str(layer))
    settings = configure(units={"kind": "transcoder", "path": str(tmp_path / "coders")})
    site = build(settings, tmp_path / "site", executor=pool)
    assert not check(site, Progress(quiet=True)).problems
    report = verify(site, units=8, seed=1)
    assert report.problems == []
    assert report.compared["activations"] > 100
    assert any("logit" in name for name in report.compared), report.compared
    assert json.loads((site / "L0" / "N0.json").read_bytes())["kind"] == "transcoder"
    page = (site / "L0" / "N0.html").read_text(encoding="utf-8")
    assert "<h1>Transcoder feature 0 of layer 0</h1>" in page
    assert "This transcoder feature <strong>" in page
    compared = compare([tiny_site, site], tmp_path / "compared").read_text(encoding="utf-8")
    assert "transcoder feature" in compared
    assert compared.count("<svg class=") >= 5
