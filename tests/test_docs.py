"""What the README, the readers' pages and the builders' guide say is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from atlas_builder import config
from atlas_builder.cli import main
from atlas_builder.config import ClusterSettings, DescribeSettings, ExampleSettings, LinkSettings
from atlas_builder.config_file import validate
from atlas_builder.shipped import MODELS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
_REPOSITORY = "https://github.com/atlas-builder/atlas-builder"


def _pages(folder: str) -> dict[str, str]:
    root = ROOT / "site_config" / folder
    pages = sorted(root.rglob("*.md"))
    return {page.relative_to(root).with_suffix("").as_posix(): page.read_text(encoding="utf-8") for page in pages}


DOCS, GUIDE = _pages("docs"), _pages("guide")
"""What is published in every atlas, and what is for those who build them."""
EVERY = {"README": README, **DOCS, **{f"guide/{name}": text for name, text in GUIDE.items()}}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_first_two_blocks_of_the_readme_install_build_and_test() -> None:
    install, test = _blocks(README, "sh")[:2]
    assert install.splitlines() == ["pip install -c constraints.txt .", "atlas-builder demo"]
    assert test.splitlines() == ['pip install -c constraints.txt ".[tests]"', "pytest -n auto"]


def test_what_an_atlas_publishes_is_for_its_readers() -> None:
    assert DOCS.keys() == {"about", "methods", "data", "citing"}


@pytest.mark.parametrize("text", EVERY.values(), ids=EVERY)
def test_every_command_that_is_shown_exists(text: str) -> None:
    for line in re.findall(r"^atlas-builder (.*)$", "\n".join(_blocks(text, "sh")), re.MULTILINE):
        names = line.split()
        command = main.commands[names[0]]
        if isinstance(command, click.Group):
            command = command.commands[names[1]]
        parameters = command.params
        options = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in line.split() if word.startswith("--")} <= options


@pytest.mark.parametrize("text", [README, GUIDE["first-atlas"]], ids=["README", "guide/first-atlas"])
def test_every_configuration_that_is_shown_is_valid(text: str) -> None:
    blocks = _blocks(text, "yaml")
    assert blocks
    for block in blocks:
        validate(yaml.safe_load(block))


def test_settings_named_in_the_documentation_exist() -> None:
    sections = config.Configuration.model_fields
    for text in EVERY.values():
        for section, field in re.findall(r"`(?:--set )?([a-z]+)\.([a-z_]+)(?:=[^`]*|: [^`]*)?`", text):
            if section in sections and field not in ("json", "yml"):
                settings = sections[section].annotation
                assert isinstance(settings, type)
                assert issubclass(settings, BaseModel)
                assert field in settings.model_fields, f"{section}.{field}"


def test_defaults_in_the_methods_are_the_defaults() -> None:
    methods = DOCS["methods"]
    clusters = ClusterSettings()
    for name in ("min_size", "min_samples", "epsilon", "cut", "similarity"):
        assert f"`{name}` {getattr(clusters, name):g}" in methods
    assert f"at least {ExampleSettings().threshold:g} × the neuron's maximum" in methods
    assert f"a uniform sample of {ExampleSettings().per_unit}" in methods
    assert f"at least {ExampleSettings().share:g} × R (`examples.share`)" in methods
    assert f"at least {ExampleSettings().least} do (`examples.least`)" in methods
    assert f"below {ExampleSettings().weakest:g} × R (`examples.weakest`)" in methods
    assert f"`link.threshold: {LinkSettings().threshold}`" in methods
    assert f"`describe.importance: {DescribeSettings().importance}`" in methods
    assert f"for {clusters.resamples} samples of half" in methods
    assert f"`{clusters.method}` (default" in methods


def test_a_record_s_hash_is_recomputed_as_the_documentation_says(tiny_site: Path) -> None:
    (command,) = _blocks(DOCS["data"], "sh")
    for path in sorted(tiny_site.glob("L*/N*.json"))[::6]:
        this = command.replace("L3/N512.json", path.relative_to(tiny_site).as_posix())
        found = subprocess.run(this, shell=True, cwd=tiny_site, capture_output=True, text=True, check=True)
        assert found.stdout.split()[0] == json.loads(path.read_bytes())["hash"]


def test_the_examples_that_open_an_atlas_work(tiny_site: Path) -> None:
    opened, tables = _blocks(DOCS["data"], "python")
    opened = opened.replace("https://example.org/atlas", str(tiny_site)).replace("3, 512", "1, 5").replace("[3]", "[1]")
    found = subprocess.run([sys.executable, "-c", opened + tables], capture_output=True, text=True, check=True)
    record = json.loads((tiny_site / "L1/N5.json").read_bytes())
    assert found.stdout.count("«") == len(record["behaviours"][0]["examples"]) > 0
    assert "A tiny atlas tiny/L1/N5" in found.stdout
    assert "mean_distance" in found.stdout


def _training(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MODELS[name] / "training.json").read_text(encoding="utf-8"))
    return found


def test_the_losses_in_the_readme_are_the_recorded_ones() -> None:
    for name in MODELS:
        loss = _training(name)["loss"]
        assert f"| `{name}` | {loss['held_out']:.2f} | {loss['training']:.2f} |" in README
        assert f"same tokens | {loss['held_out_trigram']:.2f} |" in README
    gpt, relu, crate = (_training(name) for name in ("demo", "relu-demo", "crate-demo"))
    assert f"in {gpt['minutes']:.0f} minutes" in README
    assert f"in {relu['minutes']:.0f} and {crate['minutes']:.0f} minutes" in README.replace("\n", " ")
    (sample,) = _blocks(README, "python")
    assert gpt["sample"].startswith(sample.strip())


def test_files_named_in_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("text", EVERY.values(), ids=EVERY)
def test_links_into_the_repository_lead_somewhere(text: str) -> None:
    for target in re.findall(rf"{_REPOSITORY}/(?:blob|tree)/main/([^)#\s]+)", text):
        assert (ROOT / target).exists(), target


def test_the_guide_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings")
    settings = ROOT / "site_config" / "guide.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(settings), "-d", str(tmp_path / "guide")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    navigation = settings.read_text(encoding="utf-8").partition("\nnav:")[2]
    assert set(re.findall(r"(\S+)\.md$", navigation, re.MULTILINE)) == GUIDE.keys()


def test_what_was_tested_is_pinned() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "torch==2.13.0\n" in pinned
    assert re.search(r"^transformer-lens==4\.", pinned, re.MULTILINE)


def test_what_is_said_of_publishing_is_so(tmp_path: Path, tiny_site: Path) -> None:
    from atlas_builder.site.hosting import budget, size
    from atlas_builder.site.hosting.archive import ZENODO_LIMIT, archive

    text = GUIDE["publishing"]
    assert f"Pages holds {budget.SIZE_BUDGET['github-pages'] / 1e9:g} GB" in text
    assert f"more than {budget._SHARE:.0%}".replace("%", " %") in text
    assert f"above {size.FILE_LIMIT['github-pages'] / 2**20:g} MiB" in text
    assert f"{ZENODO_LIMIT / 1e9:g} GB a record" in text
    # Files beside the site, as the commands name them.
    made = archive(tiny_site, tmp_path / "my-model-1.zip")
    for file in (made.file, made.checksum, made.metadata):
        assert file.name in text
    (workflow,) = re.findall(r"\[`(site_config/\S+\.yml)`\]", text)
    assert (ROOT / workflow).is_file()
    assert (ROOT / workflow).read_text(encoding="utf-8").startswith("# Publishes an atlas on GitHub Pages")
    (table,) = [block for block in _blocks(text, "text") if "unit pages" in block]
    assert table.splitlines()[0] == size.measure_sizes([], "none").lines[0]
