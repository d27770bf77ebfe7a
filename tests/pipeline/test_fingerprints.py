from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import atlas_builder
from atlas_builder.config import Configuration
from atlas_builder.config_file import load_config, validate
from atlas_builder.files import fingerprint
from atlas_builder.pipeline import imports
from atlas_builder.pipeline.fingerprints import code_fingerprint, stage_modules, stage_sources
from atlas_builder.pipeline.stages import STAGES, Stage
from atlas_builder.workspace import portable_configuration
from tests.support.atlases import Configure

PACKAGE = Path(atlas_builder.__file__).parent


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's source and schema, for tests to change."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "tokenizer.json")
    return shutil.copytree(PACKAGE, tmp_path_factory.mktemp("package") / "atlas_builder", ignore=ignored)


def _own_modules() -> Iterator[tuple[Stage, str]]:
    """Each module with the first stage that it is a part of."""
    earlier: set[str] = set()
    for stage in STAGES:
        yield from ((stage, module) for module in sorted(stage_modules(stage) - earlier))
        earlier |= stage_modules(stage)


@pytest.mark.parametrize(("stage", "module"), list(_own_modules()))
def test_changing_a_module_of_a_stage_repeats_that_stage_and_no_earlier_one(
    copy: Path, stage: Stage, module: str
) -> None:
    before = {name: code_fingerprint(name, copy) for name in STAGES}
    file = copy / imports.import_graph(PACKAGE)[module].file.relative_to(PACKAGE)
    source = file.read_bytes()
    try:
        file.write_bytes(source + b"# changed\n")
        after = {name: code_fingerprint(name, copy) for name in STAGES}
    finally:
        file.write_bytes(source)
    assert before[stage] != after[stage]
    for earlier in STAGES[: STAGES.index(stage)]:
        assert before[earlier] == after[earlier]


_QUANTILES = st.lists(st.sampled_from([0, 0.1, 0.25, 0.5, 0.9, 1]), min_size=2, max_size=6, unique=True).map(sorted)


@settings(deadline=None, max_examples=20)
@given(bands=_QUANTILES, own_bands=_QUANTILES, scalars=st.tuples(*[st.sampled_from([0, 1])] * 3))
def test_a_number_is_one_setting_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
    bands: list[float],
    own_bands: list[float],
    scalars: tuple[int, int, int],
) -> None:
    folder = tmp_path_factory.mktemp("settings")

    def loaded(write: Callable[[float], str]) -> list[Configuration]:
        weakest, epsilon, link = map(write, scalars)
        lists = ["[" + ", ".join(map(write, values)) + "]" for values in (bands, own_bands)]
        written = {
            "examples": {"bands": lists[0], "own_bands": lists[1], "share": write(1), "weakest": weakest},
            "clusters": {"epsilon": epsilon},
            "link": {"threshold": link},
        }
        head = "model: {name: demo}\ncorpus: {source: stdlib}\n"
        text = "".join(
            f"{section}: {{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}\n"
            for section, keys in written.items()
        )
        (folder / "whole.yml").write_text(head + text, encoding="utf-8")
        (folder / "set.yml").write_text(head, encoding="utf-8")
        sets = [f"{section}.{key}={value}" for section, keys in written.items() for key, value in keys.items()]
        return [load_config(folder / "whole.yml"), load_config(folder / "set.yml", tuple(sets))]

    ways: list[Callable[[float], str]] = [
        str,
        lambda value: str(float(value)),
        lambda value: f"{value:.3f}",
        lambda value: f"+{value:.2f}",
        lambda value: str(float(value)).removeprefix("0") if value not in (0, 1) else f"{value:d}.",
        lambda value: f"-{value:.1f}" if value == 0 else str(value),
    ]
    found = [config for way in ways for config in loaded(way)]
    assert len({orjson.dumps(portable_configuration(config)) for config in found}) == 1
    assert len({fingerprint(config.model_dump()) for config in found}) == 1


def test_the_default_written_out_is_the_default() -> None:
    head = {"model": {"name": "demo"}, "corpus": {"source": "stdlib"}}
    written = {"bands": [0.0, 0.5, 0.9, 0.99, 0.999, 1.0], "own_bands": [0, 0.1, 0.5, 0.9, 1], "weakest": 0.20}
    default, own = validate(head), validate({**head, "examples": written})
    assert stage_sources(own) == stage_sources(default)
    assert orjson.dumps(portable_configuration(own)) == orjson.dumps(portable_configuration(default))


def test_the_schema_of_records_is_a_part_of_publishing(copy: Path) -> None:
    before = code_fingerprint("publish", copy)
    schema = copy / "records" / "neuron-record.schema.json"
    source = schema.read_bytes()
    schema.write_bytes(source + b"\n")
    assert code_fingerprint("publish", copy) != before
    schema.write_bytes(source)
    assert code_fingerprint("publish", copy) == before


def test_every_module_of_a_stage_s_folder_belongs_to_the_stage() -> None:
    """Even one that nobody imports by name, such as an extension that Markdown loads."""
    for stage in STAGES[:-1]:
        folder = {f"atlas_builder.{stage}.{file.stem}" for file in (PACKAGE / stage).glob("*.py")}
        assert folder - {f"atlas_builder.{stage}.__init__"} <= stage_modules(stage), stage
    assert "atlas_builder.site.prose.markdown" in stage_modules("publish")


def test_an_import_graph_follows_lazy_imports_and_not_those_of_type_checkers(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    (package / "inner").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.c import C\nfrom pack import b\n",
        "b.py": "def later():\n    from pack.inner.d import D\n",
        "c.py": "",
        "inner/__init__.py": "",
        "inner/d.py": "import json\n",
    }.items():
        (package / name).write_text(text, encoding="utf-8")
    graph = imports.import_graph(package)
    assert imports.reached(graph, ["pack.a"]) == {"pack.a", "pack.b", "pack.inner.d"}
    assert imports.reached(graph, ["pack.a"], stop=["pack.inner.d"]) == {"pack.a", "pack.b"}


def test_every_source_of_text_on_this_machine_is_counted(configure: Configure, tmp_path: Path) -> None:
    for source, name in (("parquet", "a.parquet"), ("jsonl", "a.json"), ("jsonl", "b.jsonl.gz"), ("text", "a.md")):
        folder = tmp_path / name
        folder.mkdir()
        for place in (folder, folder / name):
            made_from = []
            for content in (b"one", b"two"):
                (folder / name).write_bytes(content)
                config = configure(corpus={"source": source, "path": str(place)})
                made_from.append(stage_sources(config)["collect"]["text"])
            assert made_from[0] != made_from[1]
