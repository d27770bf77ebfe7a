"""The examples in the docstrings of the public functions run, one after the other, as a reader would run them."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import pytest
import yaml

import atlas_builder
from tests.support.atlases import Configure

FUNCTIONS = ("load_config", "build", "open", "archive", "compare")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_arguments_result_errors_and_an_example(name: str) -> None:
    text = getattr(atlas_builder, name).__doc__
    for heading in ("Args:", "Returns:", "Raises:", "Example:"):
        assert f"    {heading}\n" in text, f"{name}: {heading}"


def test_the_examples_run(
    configure: Configure, tiny_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = configure(atlas={"id": "my-model"}).model_dump(mode="json")
    Path("my-model.yml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    shutil.copytree(tiny_site, "output/another")
    for name in FUNCTIONS:
        function = getattr(atlas_builder, name)
        (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
        assert len(example.examples) >= 3, name
        assert doctest.DocTestRunner().run(example).failed == 0, name
