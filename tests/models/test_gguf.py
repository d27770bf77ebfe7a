from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import LlamaForCausalLM

from atlas_builder.config import ModelSettings
from atlas_builder.errors import ModelError
from atlas_builder.models import language_model
from atlas_builder.shipped import MODELS
from tests.support.gguf_files import dequantised, made_llama, write_gguf

TOKENS = torch.tensor([[0, 5, 99, 1200, 7, 31]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "atlas-builder" / "gguf"


def _load(file: Path, dtype: str = "float32") -> language_model.LanguageModel:
    return language_model.load_model(ModelSettings.model_validate({"name": str(file), "dtype": dtype}))


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q5_1", "Q4_1", "Q4_0"])
def test_a_file_is_run_as_its_numbers_say(kind: str, tmp_path: Path) -> None:
    model, quantised = made_llama(), GGMLQuantizationType[kind]
    write_gguf(model, tmp_path / "model.gguf", quantised)
    loaded = _load(tmp_path / "model.gguf")
    with torch.no_grad():
        wanted = dequantised(model, quantised)(TOKENS).logits
        torch.testing.assert_close(loaded.bridge(TOKENS), wanted, rtol=1e-4, atol=1e-5)
    assert loaded.facts["quantisation"] == kind
    texts = ["def run(self):\n    return 12345 # don't", "naïve 東京 🦊"]
    assert loaded.encode(texts) == language_model.load_model(ModelSettings(name=str(MODELS["demo"]))).encode(texts)
    assert loaded.facts["bos_token"] == "<|endoftext|>"


def test_a_file_is_dequantised_once_and_again_after_it_changed(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(made_llama(), file)
    capsys.readouterr()
    first = _load(file).bridge(TOKENS)
    assert "".join(capsys.readouterr()) == ""  # no other library's progress bar
    made = sorted((entry, entry.stat().st_ino) for entry in cache.iterdir())
    torch.testing.assert_close(_load(file).bridge(TOKENS), first, rtol=0, atol=0)
    assert sorted((entry, entry.stat().st_ino) for entry in cache.iterdir()) == made
    write_gguf(made_llama(), file, GGMLQuantizationType.Q4_0)
    assert _load(file).facts["quantisation"] == "Q4_0"


def test_weights_of_16_bits_are_stored_in_16_bits(tmp_path: Path, cache: Path) -> None:
    write_gguf(made_llama(), tmp_path / "model.gguf")
    whole = sum(file.stat().st_size for file in language_model.folder_of(_settings(tmp_path)).glob("*.safetensors"))
    half_folder = language_model.folder_of(_settings(tmp_path, "bfloat16"))
    assert sum(file.stat().st_size for file in half_folder.glob("*.safetensors")) < 0.6 * whole
    assert len(list(cache.iterdir())) == 2


def _settings(folder: Path, dtype: str = "float32") -> ModelSettings:
    return ModelSettings.model_validate({"name": str(folder / "model.gguf"), "dtype": dtype})


def _folder(settings: ModelSettings) -> str:
    return str(language_model.folder_of(settings))


def test_processes_that_read_one_file_at_once_share_one_folder(tmp_path: Path, cache: Path) -> None:
    write_gguf(made_llama(), tmp_path / "model.gguf")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        one, other = pool.map(_folder, [_settings(tmp_path)] * 2)
    assert one == other
    assert [entry.name for entry in cache.iterdir()] == [Path(one).name]


def test_the_plain_model_that_verify_runs_is_the_same(tmp_path: Path) -> None:
    write_gguf(made_llama(), tmp_path / "model.gguf")
    plain = language_model.load_plain(_settings(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(plain(TOKENS).logits, _load(tmp_path / "model.gguf").bridge(TOKENS))


def _refused(file: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        _load(file)
    assert str(caught.value).isprintable()
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (partial(write_gguf, architecture="unheardof"), "of the architecture unheardof, which transformers cannot"),
        (
            partial(write_gguf, without="1.ffn_up"),
            r"lacks model\.layers\.1\.mlp\.up_proj\.weight: copy or convert it again",
        ),
        (partial(write_gguf, layers=10_000_000), "has more layers than tensors: it is damaged"),
        (partial(write_gguf, layers=20), "describes [0-9,]+ parameters, but holds [0-9,]+: it is damaged"),
        (partial(write_gguf, parts=3), r"is one of 3 parts of a model: put them together with llama\.cpp's gguf-split"),
    ],
)
def test_a_file_that_is_not_a_whole_model_of_a_known_kind_is_refused(
    write: Callable[[LlamaForCausalLM, Path], None], said: str, tmp_path: Path, cache: Path
) -> None:
    write(made_llama(), tmp_path / "model.gguf")
    _refused(tmp_path / "model.gguf", said)
    assert not list(cache.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.5, 0.9, 0.9999])
def test_a_file_that_was_cut_short_is_refused_in_a_sentence(share: float, tmp_path: Path) -> None:
    write_gguf(made_llama(), tmp_path / "whole.gguf")
    content = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "part.gguf").write_bytes(content[: int(share * len(content))])
    _refused(tmp_path / "part.gguf", "(cannot be read as GGUF|is not whole)")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(60), b"GGUF\x03\0\0\0" + b"\xff" * 64, b"<html>"])
def test_what_only_begins_or_is_named_as_gguf_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(content)
    _refused(tmp_path / "other.gguf", "cannot be read as GGUF|holds no tensor")


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(made_llama(), tmp_path / "model.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    _refused(tmp_path / "model.gguf", r"pip install 'atlas-builder\[gguf\]'")


def test_a_cache_that_cannot_be_written_is_named_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(made_llama(), tmp_path / "model.gguf")
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    _refused(tmp_path / "model.gguf", "set XDG_CACHE_HOME to a folder with room for it")


def test_a_folder_with_nothing_but_a_file_of_it_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_gguf(made_llama(), tmp_path / "model" / "small.gguf")
    _refused(tmp_path / "model", r"has no config\.json: give the file in it, small\.gguf")
