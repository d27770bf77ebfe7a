from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import atlas_builder

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_these() -> None:
    assert sorted(atlas_builder.__all__) == [
        "ActivationError", "Atlas", "AtlasError", "Configuration", "ConfigurationError", "CorpusError", "MissingError",
        "ModelError", "SiteError", "archive", "build", "compare", "load", "load_config", "open",
    ]  # fmt: skip
    assert all(getattr(atlas_builder, name) for name in atlas_builder.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = atlas_builder.nothing
    assert atlas_builder.__version__ == version("atlas-builder")


def test_pages_are_made_without_torch() -> None:
    modules = ("reader", "records.record", "records.tables", "site.publish", "site.hosting.check", "describe.results")
    code = f"import sys; {'; '.join(f'import atlas_builder.{name}' for name in modules)}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_an_atlas_is_opened_without_what_builds_one() -> None:
    code = "import sys; from atlas_builder import open; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "numpy", "scipy", "numba", "pyarrow", "pydantic", "mkdocs", "jinja2"}
    assert not heavy & set(found.stdout.split())


def test_the_core_knows_of_no_site() -> None:
    for place in ("units", "collect", "cluster"):
        path = ROOT / "atlas_builder" / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            assert not re.search(r"atlas_builder\.site|import site", file.read_text(encoding="utf-8")), file


def test_no_module_is_longer_than_a_few_hundred_lines() -> None:
    for file in (ROOT / "atlas_builder").rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, file
