from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from atlas_builder.config import ModelSettings
from atlas_builder.errors import ModelError
from atlas_builder.models import language_model
from atlas_builder.shipped import MODELS


@pytest.fixture
def broken(gpt2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gpt2_folder, tmp_path / "model"))


def _refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        language_model.load_model(ModelSettings(name=str(folder)))
    assert str(caught.value).isprintable()


def _changed(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def _tokenizer_of_bytes(folder: Path, **special: str) -> None:
    """Put a tokenizer with no token but single characters and some special ones beside weights."""
    tokens = [*special.values(), *string.printable]
    model = WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=tokens[-1])
    backend = Tokenizer(model)
    backend.pre_tokenizer = Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)


@pytest.mark.parametrize(
    ("special", "first"),
    [
        ({}, None),
        ({"eos_token": "</s>"}, "</s>"),
        ({"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]"}, "[CLS]"),
        ({"eos_token": "</s>", "bos_token": "<s>"}, "<s>"),
    ],
)
def test_a_text_begins_with_a_token_of_the_tokenizers_own_or_with_none(
    broken: Path, special: dict[str, str], first: str | None
) -> None:
    for file in broken.glob("tokenizer*"):
        file.unlink()
    _tokenizer_of_bytes(broken, **special)
    loaded = language_model.load_model(ModelSettings(name=str(broken)))
    assert loaded.facts["bos_token"] == first
    assert loaded.bos == (None if first is None else list(special.values()).index(first))
    assert "<|endoftext|>" not in loaded.token_texts, "a token that the model was not trained with is not made up"


def test_a_tokenizer_that_cuts_words_by_chance_reads_a_text_in_one_way(broken: Path) -> None:
    _changed(broken / "tokenizer.json", lambda content: content["model"].update(dropout=0.5))
    loaded = language_model.load_model(ModelSettings(name=str(broken)))
    plain = language_model.load_model(ModelSettings(name=str(MODELS["demo"]))).encode(["the quick brown fox"] * 20)
    assert loaded.encode(["the quick brown fox"] * 20) == plain


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.gguf", r"has no weights that are read, only model\.gguf: save the model with save_pretrained"),
        ("tf_model.h5", r"only tf_model\.h5: save"),
        ("weights.safetensors", r"only weights\.safetensors: save the model with save_pretrained, so that model\.safe"),
    ],
)
def test_weights_of_another_kind_are_named(broken: Path, name: str, said: str) -> None:
    (broken / "model.safetensors").rename(broken / name)
    _refused(broken, said)


def test_an_adapter_alone_is_called_one_and_merging_it_is_what_to_do(broken: Path) -> None:
    (broken / "config.json").unlink()
    (broken / "model.safetensors").rename(broken / "adapter_model.safetensors")
    (broken / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    _refused(broken, r"has an adapter \(adapter_config\.json\): merge it .*merge_and_unload")


def test_the_folder_around_a_model_and_a_file_of_it_lead_to_the_models_folder(broken: Path, tmp_path: Path) -> None:
    around = tmp_path / "trainer"
    around.mkdir()
    broken.rename(around / "checkpoint-500")
    _refused(around, r"has no config\.json: give the folder in it that has one, such as checkpoint-500\.")
    _refused(around / "checkpoint-500" / "model.safetensors", "is a file: give the folder that it lies in")


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"load_in_8bit": True, "quant_method": "bitsandbytes"}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"load_in_4bit": True}, "bitsandbytes"),
    ],
)
def test_a_quantised_model_is_refused_as_one(broken: Path, how: dict[str, Any], named: str) -> None:
    _changed(broken / "config.json", lambda config: config.update(quantization_config=how))
    _refused(broken, rf"is quantised \({named}\): give the model from which it was made")
