from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from atlas_builder import config
from atlas_builder.config_file import load_config, validate
from atlas_builder.errors import ConfigurationError

GOOD: dict[str, Any] = {"model": {"name": "demo"}, "corpus": {"source": "stdlib"}}


def _refused(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        validate(data)
    return str(caught.value).splitlines()


def test_only_model_and_corpus_are_required() -> None:
    found = validate(GOOD)
    assert found.examples.threshold == 0.75
    assert found.examples.window == (20, 10)
    assert found.examples.bands == [0, 0.5, 0.9, 0.99, 0.999, 1]
    assert (found.examples.policy, found.clusters.method) == ("robust", "linkage")
    assert _refused({}) == ["configuration: model is required.", "configuration: corpus is required."]


def test_the_numbers_of_policy_robust_fit_together() -> None:
    assert validate({**GOOD, "examples": {"policy": "robust"}}).examples.least == 100
    assert "at most share" in _refused({**GOOD, "examples": {"policy": "robust", "share": 0.1}})[0]
    validate({**GOOD, "examples": {"policy": "threshold", "share": 0.1}})


def test_a_setting_of_a_former_default_names_its_method() -> None:
    assert "set examples.policy too" in _refused({**GOOD, "examples": {"threshold": 0.5}})[0]
    validate({**GOOD, "examples": {"policy": "threshold", "threshold": 0.5}})
    assert "set clusters.method too" in _refused({**GOOD, "clusters": {"cut": 0.6}})[0]
    validate({**GOOD, "clusters": {"method": "hdbscan", "cut": 0.6}})


def test_every_error_is_named_at_once() -> None:
    problems = _refused(
        {
            "modle": {"name": "x"},
            "model": {"name": "x", "dtyp": "float32"},
            "corpus": {"source": "stdlib", "context": "long"},
            "examples": {"bands": [1, 0]},
            "clusters": {"min_size": 1},
        }
    )
    assert len(problems) == 5
    text = "\n".join(problems)
    assert "unknown key modle: did you mean model?" in text
    assert "unknown key model.dtyp: did you mean dtype?" in text
    assert "corpus.context" in text
    assert "integer" in text
    assert "bands must increase" in text
    assert "clusters.min_size" in text
    assert "greater than or equal to 2" in text


def test_an_unknown_key_of_an_author_is_named() -> None:
    assert "did you mean name?" in "".join(_refused({**GOOD, "atlas": {"authors": [{"nmae": "x", "name": "y"}]}}))


@pytest.mark.parametrize(
    ("section", "needs"),
    [
        ({"source": "text"}, "corpus.path"),
        ({"source": "jsonl"}, "corpus.path"),
        ({"source": "huggingface", "name": "x"}, "corpus.revision"),
    ],
)
def test_a_corpus_says_what_it_needs(section: dict[str, Any], needs: str) -> None:
    assert needs in "".join(_refused({**GOOD, "corpus": section}))


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yml"
    path.write_text("model:\n  name: [demo\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"broken\.yml, line \d+ is not valid YAML"):
        load_config(path)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words\n"])
def test_yaml_without_sections_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.yml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="must contain keys such as model"):
        load_config(path)


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(tmp_path / "none.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_config(tmp_path / "binary.yml")


def test_keys_can_be_set_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("model: {name: demo}\ncorpus: {source: stdlib}\n", encoding="utf-8")
    found = load_config(path, ("corpus.max_tokens=500", "examples.window=[5, 5]", "site.host=github-pages"))
    assert (found.corpus.max_tokens, found.examples.window, found.site.host) == (500, (5, 5), "github-pages")
    for bad in ("corpus.max_tokens", "=3", "model.name.deep=3"):
        with pytest.raises(ConfigurationError, match="--set"):
            load_config(path, (bad,))


def test_relative_paths_start_at_the_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    path = tmp_path / "a.yml"
    path.write_text("model: {name: demo}\ncorpus: {source: text, path: texts}\n", encoding="utf-8")
    assert load_config(path).corpus.path == str(tmp_path / "texts")


def _load(tmp_path: Path, text: str) -> config.Configuration:
    path = tmp_path / "a.yml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


BASE = "model: {name: demo}\ncorpus: {source: stdlib}\n"


def test_dates_and_versions_mean_what_was_written(tmp_path: Path) -> None:
    found = _load(tmp_path, BASE + "atlas: {version: 1.0, date: 2026-01-31}\nexamples:\n").atlas
    assert (found.version, found.date) == ("1.0", "2026-01-31")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + "atlas: {date: '2024-99-99'}", "atlas.date"),
        (BASE + "atlas: {date: 2024-13-45}", "month must be in 1..12"),
        (BASE + "atlas: {license: 'nope <x>'}", "atlas.license"),
        (BASE + "atlas: {url: 'https://e.org/x?y=1'}", "atlas.url"),
        (BASE + "atlas: {doi: '10.1234/a}b'}", "atlas.doi"),
        (BASE + "units: {layers: []}", "units.layers"),
        (BASE + "model: {name: demo}", "duplicate key model"),
        (BASE + "x: " + "[" * 3000, "line 3: it is nested more than 16 levels deep"),
        (BASE + "x: !!python/object/apply:os.system [echo]", "has the tag"),
        (
            "model: {name: demo}\ncorpus: {source: stdlib, max_tokens: 9223372036854775808}",
            "needs more than 64 bits",
        ),
        ("model: {name: demo}\ncorpus: {source: stdlib, max_tokens: 9999999999999}", "corpus.max_tokens"),
        ("model: {name: demo}\ncorpus:\n", "corpus is required"),
        ("model: {name: demo}\ncorpus: {source: stdlib}\nunits: {layers: some}", "units.layers"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    for path in ("x" * 300, "x/" * 3000, '"a\\0b"', '"a\\nb"'):
        with pytest.raises(ConfigurationError, match=r"corpus\.path|special characters"):
            _load(tmp_path, f"model: {{name: demo}}\ncorpus: {{source: text, path: {path}}}")


def _laughs(levels: int) -> str:
    """Aliases of aliases: each level stands for nine of the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        _laughs(9),
        BASE + "atlas: {title: &t x, authors: [" + "*t, " * 6000 + "]}",
        "a: &a {x: 1}\nb: &b {<<: [" + "*a, " * 70 + "]}\nc: &c {<<: [" + "*b, " * 70 + "]}\nd: {<<: [*c, *c]}",
        "a: &a [*a]",
        "a: &a {<<: *a}",
        BASE + "x: " + "{a: " * 100 + "}" * 100,
        BASE + "- " * 40,
        BASE + "? [a]\n: b",
        BASE + "? {a: b}\n: c",
        BASE + "1: x",
        BASE + "atlas: {<<: {[a]: b}}",
        BASE + "atlas: {license: 18446744073709551616}",
        BASE + "examples: {least: 1:30}",
        BASE + "atlas: {title: " + "9" * 5000 + "}",
        BASE + "examples: {share: " + "9" * 400 + ".0}",
        BASE + 'atlas: {title: "\\ud800"}',
        BASE + 'atlas: {title: "a\\0b"}',
        BASE + 'atlas: {date: !!timestamp "x"}',
        BASE + "atlas: {title: !!binary aGk=}",
        BASE + "atlas: !!set {a, b}",
        BASE + "atlas: !!omap [a: b]",
        BASE + "atlas: !!python/name:os.system ''",
        BASE + "atlas: !mine {a: b}",
        BASE + "#" * 200_000,
        BASE + "\n".join(f"k{number}: x" for number in range(4000)),
        BASE + "k" * 5000 + ": x",
        BASE + "atlas: {title: " + "t" * 5000 + "}",
        BASE + "---\n" + BASE,
    ],
)
def test_a_bomb_is_refused_within_a_second_in_short_sentences(tmp_path: Path, text: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        _load(tmp_path, text)
    assert time.process_time() - started < 1
    lines = str(caught.value).splitlines()
    assert len(lines) <= 21
    assert all(len(line) <= 300 and line.endswith((".", "?")) and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("atlas.url", '"http://[::1"'),
        ("atlas.url", "http://example.org:port/"),
        ("atlas.url", "https://user:secret@example.org/"),
        ("atlas.url", '"https://example.org/\\u202egro"'),
        ("atlas.url", "https:///path"),
        ("site.above", '"http://[::1"'),
        ("atlas.version", ".nan"),
        ("atlas.version", "-.inf"),
        ("atlas.version", '" "'),
        ("atlas.version", '"1\\u202e"'),
        ("atlas.license", '" "'),
        ("atlas.authors", '[{name: " "}]'),
        ("atlas.authors", '[{name: "\\u200b"}]'),
        ("atlas.authors", "[{name: 'Doe, Jane', orcid: 0000-0002-1825-0098}]"),
        ("atlas.authors", "[{name: 'Doe, Jane', orcid: \u0660000-0002-1825-0097}]"),
        ("atlas.doi", '"10.1234/\\u202e"'),
        ("units.layers", "[4294967296]"),
        ("examples.share", ".nan"),
        ("corpus.max_tokens", "[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]"),
        ("corpus.path", '"a\\0"'),
        (".".join("a" * 100_000), "1"),
        ("model.name", "&a [*a]"),
    ],
)
def test_what_is_refused_in_a_file_is_refused_on_the_command_line(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "a.yml"
    path.write_text(BASE, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, (f"{key}={value}",))
    assert len(str(caught.value)) <= 300
    assert key[:50] in str(caught.value) or "a.a.a" in str(caught.value)


def test_an_orcid_has_the_check_digit_of_iso_7064() -> None:
    for orcid in ("0000-0002-1825-0097", "0000-0001-5109-3700", "0000-0002-1694-233X"):
        validate({**GOOD, "atlas": {"authors": [{"name": "Doe, Jane", "orcid": orcid}]}})
        for digit in set("0123456789X") - {orcid[-1]}:
            _refused({**GOOD, "atlas": {"authors": [{"name": "Doe, Jane", "orcid": orcid[:-1] + digit}]}})


def test_an_alias_and_a_merge_of_the_usual_size_are_read(tmp_path: Path) -> None:
    text = 'model: &m {name: demo}\ncorpus: {source: stdlib}\natlas: {title: &t "\\ud83d\\ude00", id: x}\n'
    assert _load(tmp_path, text).title == "\U0001f600"
    merged = "corpus: {<<: &c {source: stdlib, context: 64}, context: 32}\nmodel: {name: demo}\n"
    assert _load(tmp_path, merged).corpus.context == 32


def test_an_edition_keeps_its_last_zero(tmp_path: Path) -> None:
    assert _load(tmp_path, BASE + "atlas: {version: 1.10}").atlas.version == "1.10"
    path = tmp_path / "a.yml"
    assert load_config(path, ("atlas.version=2.20", "atlas.date=2026-01-31")).atlas.version == "2.20"


_WRITTEN = (
    "1.10",
    "1.0",
    "2026-01-31",
    "0x10",
    "1e3",
    "1.0e+3",
    "007",
    "0o17",
    "yes",
    "No",
    "1_000",
    "1:30",
    ".5",
    "+1",
)


@pytest.mark.parametrize("written", _WRITTEN)
def test_text_that_looks_like_a_number_stays_as_it_was_written(tmp_path: Path, written: str) -> None:
    text = "model: {{name: demo, revision: {0}}}\ncorpus: {{source: stdlib, field: {0}}}\n"
    text += "atlas: {{version: {0}, title: {0}}}"
    for given in (written, f"'{written}'", f'"{written}"'):
        found = _load(tmp_path, text.format(given))
        kept = (found.atlas.version, found.atlas.title, found.model.revision, found.corpus.field)
        assert kept == (written,) * 4
        path = tmp_path / "a.yml"
        assert load_config(path, (f"atlas.version={given}",)).atlas.version == written


def test_an_edition_in_a_merged_section_or_with_an_alias_is_kept(tmp_path: Path) -> None:
    merged = _load(tmp_path, BASE + "atlas: {<<: {version: 1.10, id: x}, title: t}")
    assert (merged.atlas.version, merged.atlas.id) == ("1.10", "x")
    several = _load(tmp_path, BASE + "atlas: {<<: [{version: 1.10}, {id: 007}], title: t}")
    assert (several.atlas.version, several.atlas.id) == ("1.10", "007")
    aliased = _load(tmp_path, BASE + "clusters: {method: agglomerative, cut: &v 0.50}\natlas: {version: *v}")
    assert (aliased.atlas.version, aliased.clusters.cut) == ("0.50", 0.5)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "long", "nul"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    places = {"device": Path("/dev/zero"), "long": tmp_path / ("x" * 300), "nul": Path("a\0b")}
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(places.get(kind, tmp_path / kind))


def test_a_section_that_the_file_leaves_empty_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text(BASE + "examples:\n", encoding="utf-8")
    assert load_config(path, ("examples.least=3",)).examples.least == 3


def test_the_shipped_configurations_are_valid() -> None:
    from atlas_builder.shipped import shipped_folder

    for path in (shipped_folder("site_config") / "demo.yml", shipped_folder("site_config") / "gpt2-small.yml"):
        assert load_config(path).atlas.id == path.stem


def test_every_field_is_documented() -> None:
    for name, section in config.Configuration.model_fields.items():
        for field, info in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert info.description, f"{name}.{field}"
