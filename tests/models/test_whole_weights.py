"""Weights are whole or refused: nothing is filled in, whatever a library would do."""

from __future__ import annotations

import functools
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atlas_builder.config import ModelSettings
from atlas_builder.config_file import validate
from atlas_builder.errors import ModelError
from atlas_builder.models import crate, language_model
from atlas_builder.units.open import open_units
from tests.support.models import SHAPES, LeavesMark

Tensors = dict[str, Tensor]


@pytest.fixture
def copied(tiny_model: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's model that a test may damage."""
    return lambda family: Path(shutil.copytree(tiny_model(family), tmp_path / family, dirs_exist_ok=True))


def _rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


def _configure(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def _refused(folder: Path, match: str) -> None:
    """By the model that is built from, and by the one that verify loads."""
    for load in (language_model.load_model, language_model.load_plain):
        with pytest.raises(ModelError, match=match) as caught:
            load(ModelSettings(name=str(folder)))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) <= 300


def _loads(folder: Path) -> Tensors:
    plain = language_model.load_plain(ModelSettings(name=str(folder)))
    assert language_model.load_model(ModelSettings(name=str(folder))).facts["layers"] == 2
    state: Tensors = plain.state_dict()
    return state


@pytest.mark.parametrize("family", list(SHAPES))
def test_weights_that_are_not_whole_are_refused_with_the_name_of_a_tensor(
    family: str, copied: Callable[[str], Path], tiny_model: Callable[[str], Path]
) -> None:
    layer = "transformer.h.1." if family == "gpt2" else "layers.1."
    depth = "n_layer" if family == "gpt2" else "num_hidden_layers"
    whole = load_file(tiny_model(family) / "model.safetensors")
    folder = copied(family)

    def now(change: Callable[[Tensors], Tensors]) -> Path:
        _rewrite(folder, lambda _: change(whole))
        return folder

    _refused(
        now(lambda all_: {name: value for name, value in all_.items() if layer not in name}), r"lack \S+ and \d+ more"
    )
    _refused(now(lambda all_: {f"inner.{name}": value for name, value in all_.items()}), r"lack \S+ and \d+ more")
    _refused(now(lambda all_: {**all_, "score.weight": torch.zeros(2, 2)}), "contain score.weight, which")
    _refused(now(lambda all_: {**all_, (name := max(n for n in all_ if "mlp" in n)): all_[name][:-1]}), "has the shape")
    now(lambda all_: all_)
    _configure(folder, **{depth: 3, "layer_types": None})
    _refused(folder, r"lack \S+2\.\S+ and \d+ more, which config.json describes")
    _configure(folder, **{depth: 10**7})
    _refused(folder, f"config.json has {depth} 10000000, but its weights hold {len(whole)} tensors")


@pytest.mark.parametrize(("prefix", "maker"), [("_orig_mod.", "torch.compile"), ("module.", "DataParallel")])
def test_a_model_saved_from_a_wrapper_is_refused_with_what_to_do(
    prefix: str, maker: str, copied: Callable[[str], Path]
) -> None:
    folder = copied("llama")
    _rewrite(folder, lambda all_: {prefix + name: tensor for name, tensor in all_.items()})
    _refused(folder, rf"{prefix}\S+ and \d+ more were saved from a wrapper \({maker}\): save the model that is inside")


def test_weights_that_transformers_itself_has_written_in_other_ways_are_read(
    copied: Callable[[str], Path], tiny_model: Callable[[str], Path]
) -> None:
    wanted = _loads(tiny_model("gpt2"))
    changes: list[Callable[[Tensors], Tensors]] = [
        lambda all_: {name.removeprefix("transformer."): tensor for name, tensor in all_.items()},
        lambda all_: {**all_, "lm_head.weight": all_["transformer.wte.weight"].clone()},
        lambda all_: {**all_, "transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64)},
        lambda all_: {**all_, "transformer.h.1.attn.masked_bias": torch.tensor(-1e4)},
    ]
    for change in changes:
        folder = copied("gpt2")
        _rewrite(folder, change)
        state = _loads(folder)
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


def test_an_untied_head_must_be_there(copied: Callable[[str], Path]) -> None:
    folder = copied("gpt2")
    _configure(folder, tie_word_embeddings=False)
    _refused(folder, "lack lm_head.weight, which config.json describes")


def test_parts_of_weights_are_all_there_or_named(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    whole, names = load_file(folder / "model.safetensors"), ("a.safetensors", "b.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: names[number % 2] for number, name in enumerate(sorted(whole))}
    for file in names:
        save_file({name: whole[name] for name in whole if places[name] == file}, folder / file, {"format": "pt"})

    def index(content: object) -> None:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": content}), encoding="utf-8"
        )

    index(places)
    assert _loads(folder)
    index({**places, "more": "a.safetensors"})
    _refused(folder, "a.safetensors lacks more, which model.safetensors.index.json names")
    index(dict.fromkeys(places, "../../secret"))
    _refused(folder, "its part ../../secret is missing")
    index([1])
    _refused(folder, "has no weight_map")
    index(places)
    (folder / "b.safetensors").unlink()
    _refused(folder, "its part b.safetensors is missing: copy all files")


def _replaced(all_: Tensors, norm: Tensor) -> Tensors:
    return {**all_, "model.norm.weight": norm}


def test_weights_without_numbers_are_refused(copied: Callable[[str], Path]) -> None:
    for value in (float("nan"), float("inf")):
        folder = copied("llama")
        norm = torch.full((16,), value)
        _rewrite(folder, functools.partial(_replaced, norm=norm))
        _refused(folder, "model.norm.weight contain NaN or infinity")
    folder = copied("gpt2")
    _rewrite(folder, lambda _: {})
    _refused(folder, "the weights hold no tensor")


def test_a_pickle_cannot_claim_more_numbers_than_it_holds(copied: Callable[[str], Path]) -> None:
    folder = copied("gpt2")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**state, "more": torch.zeros(1).expand(10**12)}, folder / "pytorch_model.bin")
    _refused(folder, "claims more numbers than it holds")


def test_other_files_beside_good_weights_are_not_opened(
    copied: Callable[[str], Path], crate_folder: Path, tmp_path: Path
) -> None:
    """config.json decides what a folder is."""
    mark = tmp_path / "mark"
    own = Path(shutil.copytree(crate_folder, tmp_path / "crate"))
    for folder in (copied("gpt2"), own):
        for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "ckpt.pt", "rng_state.pth"):
            (folder / name).write_bytes(pickle.dumps(LeavesMark(mark)))
        assert language_model.load_model(ModelSettings(name=str(folder))).facts["layers"] == 2
    (own / "config.json").unlink()
    with pytest.raises(ModelError, match="is not a checkpoint of CRATE's training script"):
        crate.load_crate(own)
    assert not mark.exists()


def test_a_crate_of_sizes_that_cannot_be_is_refused_before_it_is_made(crate_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(crate_folder, tmp_path / "crate"))
    for changes, match in (
        ({"heads": 3}, "3 heads, which do not divide the width 8"),
        ({"layers": 10**7}, "has 10,000,000 layers, but the weights hold"),
        ({"vocabulary": 10**9}, "has the shape"),
        ({"width": "8"}, "width in config.json must be a whole number of at least 1, not '8'"),
        ({"context": [1]}, "context in config.json must be a whole number"),
    ):
        shutil.copy(crate_folder / "config.json", folder)
        _configure(folder, **changes)
        with pytest.raises(ModelError, match=match):
            language_model.load_model(ModelSettings(name=str(folder)))


def test_a_tokenizer_of_another_model_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("gpt2")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": 2048, "content": "<picture>", **flags})
    file.write_text(json.dumps(content), encoding="utf-8")
    loaded = language_model.load_model(ModelSettings(name=str(folder)))
    assert len(loaded.token_texts) == 2048
    assert loaded.encode(["the cat"])
    with pytest.raises(
        ModelError, match="the text contains <picture>, token 2,048 of the tokenizer, but the model has"
    ):
        loaded.encode(["the cat", "a <picture> of it"])
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "bos_token": "<picture>"}), encoding="utf-8")
    with pytest.raises(ModelError, match="begins texts with token 2048, but the model has 2,048 tokens"):
        language_model.load_model(ModelSettings(name=str(folder)))
    vocabulary = content["model"]["vocab"]
    vocabulary[min(vocabulary)] = 4_000_000_000
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="it has a token of the number 4,000,000,000"):
        language_model.load_model(ModelSettings(name=str(folder)))


def test_a_model_that_computes_no_numbers_is_refused_before_the_pass(copied: Callable[[str], Path]) -> None:
    folder = copied("gpt2")
    _rewrite(folder, lambda all_: {**all_, "transformer.wte.weight": all_["transformer.wte.weight"].fill_(3e38)})
    config = {"model": {"name": str(folder)}, "corpus": {"source": "stdlib", "context": 16}}
    settings = validate(config)
    with pytest.raises(ModelError, match="layer 0 computes NaN or infinity from two tokens"):
        open_units(language_model.load_model(settings.model), settings)
