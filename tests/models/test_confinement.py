"""While a model loads, no code of its own runs, no program starts, nobody is asked and no address."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atlas_builder.config import ModelSettings
from atlas_builder.errors import ModelError
from atlas_builder.models import hub, language_model
from atlas_builder.models.confinement import ConfinementError, confined
from atlas_builder.units.mlp import MLPUnits
from tests.support.models import save_multimodal


@pytest.fixture
def broken(gpt2_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(gpt2_folder, tmp_path / "model"))


def _rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


@pytest.mark.parametrize("part", ["tokenizer", "model"])
def test_a_models_own_code_is_not_run_and_nobody_is_asked(
    part: str, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = broken / "mark"
    (broken / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    if part == "tokenizer":
        (broken / "tokenizer.json").unlink()
        _rewrite(
            broken / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="T"
        )
    else:
        code = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
        _rewrite(broken / "config.json", auto_map=code, model_type="mine")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelError, match="needs its own code, which is not run"):
        language_model.load_model(ModelSettings(name=str(broken)))
    assert not mark.exists()


def test_code_that_is_not_needed_is_left_alone(broken: Path) -> None:
    (broken / "evil.py").write_text("raise SystemExit\n", encoding="utf-8")
    _rewrite(broken / "config.json", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    _rewrite(broken / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    assert language_model.load_model(ModelSettings(name=str(broken))).facts["layers"] == 2
    assert language_model.load_plain(ModelSettings(name=str(broken)))


def test_attention_that_the_hub_would_bring_is_refused(broken: Path) -> None:
    _rewrite(broken / "config.json", _attn_implementation="someone/kernel")
    for load in (language_model.load_model, language_model.load_plain):
        with pytest.raises(ModelError, match=r"needs its own code, which is not run|cannot be loaded"):
            load(ModelSettings(name=str(broken)))


def test_a_multimodal_model_is_read_without_its_processor_and_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_multimodal(tmp_path)

    started: list[object] = []

    def never(*given: object, **_: object) -> None:
        started.append(given)
        raise AssertionError("a program was started or an address asked")

    monkeypatch.setattr(subprocess, "Popen", never)
    monkeypatch.setattr(subprocess, "check_call", never)
    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(os, "posix_spawn", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    loaded = language_model.load_model(ModelSettings(name=str(tmp_path)))
    assert MLPUnits(loaded.bridge).count(1) == 20
    assert language_model.load_plain(ModelSettings(name=str(tmp_path)))
    assert not started


def test_within_confinement_no_program_starts_and_nobody_is_asked() -> None:
    program = [sys.executable, "-c", ""]
    with confined():
        for attempt in (
            lambda: subprocess.run(program, check=True),
            lambda: os.system("true"),
            lambda: os.posix_spawn(sys.executable, program, {}),
            lambda: input("?"),
            lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
        ):
            with pytest.raises(ConfinementError):
                attempt()
    subprocess.run(program, check=True)
    with confined(network=True), pytest.raises(ConfinementError):
        subprocess.run(program, check=True)


def test_of_a_model_on_the_hub_only_what_is_read_is_fetched(
    gpt2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fetch(name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        assert (name, revision, ignore_patterns) == ("somebody/model", "abc", ["*/*"])
        asked.append(allow_patterns)
        return str(gpt2_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    loaded = language_model.load_model(ModelSettings(name="somebody/model", revision="abc"))
    assert loaded.facts["layers"] == 2
    assert asked == [hub._TEXTS, ["model.safetensors"]]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"])
def test_a_pipe_named_like_a_file_is_not_waited_for(name: str, broken: Path) -> None:
    (broken / name).unlink(missing_ok=True)
    os.mkfifo(broken / name)
    with pytest.raises(ModelError, match=r"is a pipe, not a file|has no config\.json|has no weights"):
        language_model.load_model(ModelSettings(name=str(broken)))
