from __future__ import annotations

import threading
import urllib.error
import urllib.request
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from atlas_builder.cli import main
from atlas_builder.errors import AtlasError
from atlas_builder.pipeline import build as builder
from atlas_builder.site.hosting.serve import server


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


COMMANDS: list[list[str]] = [[], *([name] for name in main.commands)]
COMMANDS += [
    [name, below] for name, group in main.commands.items() if isinstance(group, click.Group) for below in group.commands
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_helps_with_an_example(command: list[str]) -> None:
    result = _run(*command, "--help")
    assert result.exit_code == 0
    assert "atlas-builder " in result.output


def test_a_wrong_configuration_ends_with_two_and_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("modle: {}\ncorpus: {source: nowhere}\n", encoding="utf-8")
    result = _run("build", str(path))
    assert result.exit_code == 2
    assert "did you mean model?" in result.output
    assert "corpus.source" in result.output
    assert "Traceback" not in result.output


def test_a_missing_configuration_and_a_wrong_option_end_with_two(tmp_path: Path) -> None:
    assert _run("build", str(tmp_path / "none.yml")).exit_code == 2
    assert _run("build").exit_code == 2
    assert _run("build", "x.yml", "--until", "nowhere").exit_code == 2
    assert _run("dmeo").exit_code == 2


def test_a_broken_corpus_ends_with_one(tmp_path: Path, gpt2_folder: Path) -> None:
    (tmp_path / "c.jsonl").write_text("broken\n", encoding="utf-8")
    path = tmp_path / "a.yml"
    path.write_text(f"model: {{name: {gpt2_folder}}}\ncorpus: {{source: jsonl, path: c.jsonl}}\n", encoding="utf-8")
    result = _run("build", str(path), "--output", str(tmp_path / "site"), "--set", "corpus.context=16")
    assert result.exit_code == 1
    assert "line 1 is not JSON" in result.output
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("raised", "said", "status"),
    [
        (KeyboardInterrupt(), "run the same command to continue", 130),
        (OSError(28, "No space left on device", "x"), "The disk is full (x)", 1),
        (OSError("176300 requested and 47600 written"), "The disk is full:", 1),
        (OSError(13, "Permission denied", "y"), "y: Permission denied.", 1),
        (AtlasError("A sentence."), "A sentence.", 1),
        (RuntimeError("odd"), "this is a bug in Atlas Builder", 1),
    ],
)
def test_whatever_goes_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, said: str, status: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(builder, "build", fail)
    result = _run("demo")
    assert result.exit_code == status
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(builder, "build", fail)
    assert isinstance(_run("--debug", "demo").exception, RuntimeError)


def test_check_ends_with_one_on_a_damaged_site(tiny_site: Path, tmp_path: Path) -> None:
    import shutil

    assert _run("check", str(tiny_site)).exit_code == 0
    site = shutil.copytree(tiny_site, tmp_path / "site")
    (site / "L0" / "N0.json").write_text("{}", encoding="utf-8")
    result = _run("check", str(site))
    assert result.exit_code == 1
    assert "L0/N0.json" in result.output
    assert _run("check", str(tmp_path)).exit_code == 2


def test_serve_answers_on_this_machine_only_and_has_a_page_for_what_is_missing(tiny_site: Path, tmp_path: Path) -> None:
    with server(tiny_site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        assert running.server_address[0] == "127.0.0.1"
        assert b"A tiny atlas" in urllib.request.urlopen(f"{address}/L0/index.html").read()
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"{address}/nothing.html")
        assert missing.value.code == 404
        assert b"There is no such page" in missing.value.read()
        result = _run("serve", str(tiny_site), "--port", str(running.server_port))
        assert result.exit_code == 2
        assert "choose another" in result.output
        running.shutdown()
    assert _run("serve", str(tmp_path)).exit_code == 2


def test_shards_are_made_and_merged_and_the_site_verified(tmp_path: Path, gpt2_folder: Path, jsonl: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(
        f"model: {{name: {gpt2_folder}}}\ncorpus: {{source: jsonl, path: {jsonl}, context: 32}}\n", encoding="utf-8"
    )
    site = ["--output", str(tmp_path / "site")]
    assert _run("build", str(path), *site, "--shard", "3/2").exit_code == 2
    missing = _run("build", str(path), *site, "--shard", "1/2", "--set", "corpus.path=none.jsonl")
    assert missing.exit_code == 2
    assert "none.jsonl" in missing.output
    for shard in ("1/2", "2/2"):
        result = _run("build", str(path), *site, "--shard", shard)
        assert result.exit_code == 0
        assert f"shard {shard} is done" in result.output
    assert _run("merge", str(path), *site, str(tmp_path / "nowhere")).exit_code == 2
    assert "continue with: atlas-builder build" in _run("merge", str(path), *site).output
    built = _run("build", str(path), *site)
    assert built.exit_code == 0, built.output
    assert "collect: unchanged" in built.output
    verified = _run("verify", str(tmp_path / "site"), "--units", "3")
    assert verified.exit_code == 0, verified.output
    assert "all claims hold" in verified.output
    for record in (tmp_path / "site").glob("L*/N*.json"):
        record.write_text(record.read_text(encoding="utf-8").replace('"max":', '"max":9'), encoding="utf-8")
    spoilt = _run("verify", str(tmp_path / "site"), "--units", "3")
    assert spoilt.exit_code == 1
    assert "is published as" in spoilt.output
    assert _run("verify", str(tmp_path)).exit_code == 2
