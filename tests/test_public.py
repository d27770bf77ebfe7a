from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest

import atlas_builder

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_these() -> None:
    assert sorted(atlas_builder.__all__) == [
        "ActivationError", "Atlas", "AtlasError", "Configuration", "ConfigurationError", "CorpusError", "MissingError",
        "ModelError", "SiteError", "archive", "build", "cluster_examples", "compare", "load", "load_config", "open",
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


def _modules() -> dict[Path, ast.Module]:
    files = sorted((ROOT / "atlas_builder").rglob("*.py"))
    return {file.relative_to(ROOT / "atlas_builder"): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def test_modules_and_functions_are_short() -> None:
    for file, tree in _modules().items():
        assert len((ROOT / "atlas_builder" / file).read_text(encoding="utf-8").splitlines()) <= 400, file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 60, f"{file}: {node.name}"


REEXPORTS = {"behaviours", "embeddings", "sureness", "train_sae"}


def test_the_root_holds_twelve_modules_at_most() -> None:
    assert len({file.stem for file in _modules() if len(file.parts) == 1} - REEXPORTS) <= 12


def test_every_folder_says_what_lives_there() -> None:
    for file, tree in _modules().items():
        if file.name == "__init__.py":
            assert ast.get_docstring(tree), file


def test_no_public_name_is_defined_twice() -> None:
    """But for commands, which are named after what they call, and scripts that are run on their own."""
    places = defaultdict(list)
    for file, tree in _modules().items():
        if file.stem not in REEXPORTS | {"cli"} and file.parts[0] != "demo":
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(file.as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_former_import_paths_still_work() -> None:
    from atlas_builder import behaviours, config, embeddings, load, load_config, sureness, train_sae
    from atlas_builder.cluster import clustering, stability
    from atlas_builder.cluster import embeddings as now

    assert load is load_config
    assert (behaviours.cluster, behaviours.measure) == (clustering.cluster, clustering.measure)
    assert (embeddings.neuron_embeddings, embeddings.cosine_distances) == (now.neuron_embeddings, now.cosine_distances)
    assert (sureness.sureness, sureness.stability) == (stability.stability_measures, stability.stability)
    assert train_sae.train.__module__ == "atlas_builder.demo.train_sae"
    for former, name in config._FORMER.items():
        assert getattr(config, former) is getattr(config, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = config.nothing
