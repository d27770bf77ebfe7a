from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from atlas_builder.config import ModelSettings, UnitSettings
from atlas_builder.config_file import validate
from atlas_builder.corpus.documents import stdlib_documents
from atlas_builder.demo import train
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import language_model
from atlas_builder.shipped import CRATE, MODEL, MODELS, RELU, SAES
from atlas_builder.units.open import load_saes, open_units
from tests.support.models import RunsCode


@pytest.fixture
def broken(gpt2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gpt2_folder, tmp_path / "model"))


def _refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        language_model.load_model(ModelSettings(name=str(folder)))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    _refused(tmp_path / "none", "is not found")


def test_a_folder_without_config_weights_or_tokenizer_is_refused(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "weights.away")
    _refused(broken, r"has no weights: put model\.safetensors beside config\.json")
    (broken / "weights.away").rename(broken / "model.safetensors")
    for file in broken.glob("tokenizer*"):
        file.unlink()
    _refused(broken, r"has no tokenizer that can be read .*: put tokenizer\.json beside the weights")
    (broken / "config.json").unlink()
    _refused(broken, r"has no config\.json")


def test_pickled_weights_that_could_run_code_are_refused_and_not_run(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken / "model.safetensors").unlink()
    torch.save({"weight": RunsCode()}, broken / "pytorch_model.bin")
    _refused(broken, "contains more than tensors, which could run code when loaded: convert it to safetensors")
    assert "unpickled!" not in capsys.readouterr().out


def test_pickled_weights_of_tensors_only_are_read(broken: Path) -> None:
    state = language_model.load_model(ModelSettings(name=str(broken))).bridge.original_model.state_dict()
    from transformers import AutoModelForCausalLM

    state = AutoModelForCausalLM.from_pretrained(broken).state_dict()
    (broken / "model.safetensors").unlink()
    torch.save(state, broken / "pytorch_model.bin")
    assert language_model.load_model(ModelSettings(name=str(broken))).facts["layers"] == 2


def test_truncated_weights_are_one_sentence(broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    _refused(broken, "is damaged .*: copy or save it again")


def test_a_name_the_hub_does_not_give_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="check the name, the revision and the network"):
        language_model.load_model(ModelSettings(name="nobody/nothing-at-all"))


def test_a_device_that_is_not_there_is_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match=r"model\.device: cuda is not available here: use cpu"):
            language_model.load_model(ModelSettings(name="demo", device="cuda"))


def test_a_context_longer_than_the_models_is_refused() -> None:
    settings = validate({"model": {"name": "demo"}, "corpus": {"source": "stdlib", "context": 129}})
    with pytest.raises(ConfigurationError, match="129 is more than the model's 128 tokens"):
        open_units(language_model.load_model(settings.model), settings)


@pytest.mark.parametrize("kind", ["gpt2_folder", "llama_folder"])
def test_the_unembedding_holds_the_final_norm(kind: str, request: pytest.FixtureRequest) -> None:
    """A small step along any direction moves the logits as the map says, up to the norm's own scale."""
    loaded = language_model.load_model(ModelSettings(name=str(request.getfixturevalue(kind))))
    torch.manual_seed(1)
    width = int(loaded.bridge.cfg.d_model)
    norm, unembed = loaded.bridge.ln_final, loaded.bridge.W_U.detach()
    with torch.no_grad():
        gain, _ = loaded._final_norm()
        norm_weight = next(iter(norm.parameters()))
        np.testing.assert_allclose(gain, norm_weight.detach(), atol=1e-4)
        x = torch.randn(width)
        centred = x - x.mean() if kind == "gpt2_folder" else x
        # Orthogonal to x, a step leaves the norm's scale as it is, to first order.
        step = torch.randn(width)
        step = step - step.mean() if kind == "gpt2_folder" else step
        step = step - centred * (step @ centred) / (centred @ centred)
        change = (norm((x + 1e-3 * step)[None, None]) - norm((x - 1e-3 * step)[None, None]))[0, 0] @ unembed / 2e-3
        scale = centred.square().mean().sqrt()
        wanted = step @ loaded.unembedding()
        np.testing.assert_allclose(change * scale, wanted, atol=2e-2 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_shipped_model_is_a_language_model_and_says_how_good(name: str) -> None:
    """Its recorded held-out loss is reproduced on the same documents, and is below the recorded trigram's."""
    folder = MODELS[name]
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert record["loss"]["held_out"] < record["loss"]["held_out_trigram"]
    assert record["minutes"] <= 40
    loaded = language_model.load_model(ModelSettings(name=name))
    slow = loaded.bridge if name == "crate-demo" else AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in slow.parameters()) == record["parameters"]
    texts = [document.text for document in stdlib_documents() if document.text.strip()][:: train.HELD_OUT_DOCUMENTS]
    encoded = [np.array(ids) for ids in loaded.encode(texts)]
    assert loaded.bos is not None
    stream = train.join(encoded, loaded.bos)[:60_000]
    loss = train.evaluate(slow, stream, loaded.bos, record["recipe"]["context"])
    # Another Python has other documents in this place, so only the same one must agree closely.
    same = platform.python_version() == record["corpus"]["python"]
    assert loss == pytest.approx(record["loss"]["held_out"], abs=0.25 if same else 0.6)


def test_what_is_shipped_is_small() -> None:
    def size(*folders: Path) -> int:
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))

    assert size(MODEL) < 8e6
    assert size(RELU, CRATE) < 8e6
    assert size(SAES) < 4e6


def test_shipped_saes_are_found_by_name_and_another_name_says_which_there_are() -> None:
    plain = load_saes(UnitSettings(kind="sae", release="demo", id="plain"))
    assert [(one.layer, one.place, one.model) for one in plain] == [
        (layer, "mlp.hook_in", "demo") for layer in range(4)
    ]
    with pytest.raises(ConfigurationError, match=r"units\.id: \.\. is not among the shipped SAEs: use .* or plain"):
        load_saes(UnitSettings(kind="sae", release="demo", id=".."))
