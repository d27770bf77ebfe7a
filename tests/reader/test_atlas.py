"""A built atlas, read by a program."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pytest

import atlas_builder
from atlas_builder.errors import AtlasError, MissingError, SiteError
from atlas_builder.reader import Association, Atlas, Unit
from atlas_builder.reader.source import FolderSource, HttpSource, source
from atlas_builder.site.hosting.serve import server
from tests.support.servers import running


def _served(folder: Path) -> AbstractContextManager[str]:
    return running(server(folder, 0))


@pytest.fixture(params=["folder", "http"])
def atlas(request: pytest.FixtureRequest, tiny_site: Path) -> Iterator[Atlas]:
    """The tiny atlas, opened either way."""
    if request.param == "folder":
        yield atlas_builder.open(tiny_site)
    else:
        with _served(tiny_site) as address:
            yield atlas_builder.open(address)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from folders, in order."""
    names: list[str] = []
    plain = FolderSource.read

    def noted(self: FolderSource, name: str) -> bytes | None:
        names.append(name)
        return plain(self, name)

    monkeypatch.setattr(FolderSource, "read", noted)
    return names


def _record(site: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site / f"{name}.json").read_bytes())
    return found


def _write(site: Path, name: str, record: dict[str, Any]) -> None:
    (site / f"{name}.json").write_bytes(orjson.dumps(record))


def test_an_atlas_says_what_it_is(atlas: Atlas) -> None:
    assert (atlas.id, atlas.title, atlas.edition) == ("tiny", "A tiny atlas", "1")
    assert atlas.facts["model"]["activation"] == "gelu_new"
    assert [(layer.number, len(layer)) for layer in atlas.layers] == [(0, 24), (1, 24)]
    assert len(atlas) == 48
    assert repr(atlas).startswith("<Atlas 'A tiny atlas', edition 1: 48 units of ")
    assert repr(atlas[1]) == "<Layer 1 of tiny: 24 units>"


def test_a_unit_is_found_by_its_address(atlas: Atlas, tiny_site: Path) -> None:
    unit = atlas[1, 5]
    assert unit.record == _record(tiny_site, "L1/N5")
    of_numpy = cast(tuple[int, int], (np.int64(1), np.int32(5)))  # numbers from an array are no `int`
    assert atlas["tiny/L1/N5"] == atlas["L1/N5"] == atlas[1][5] == atlas[of_numpy] == unit
    assert unit.page == "L1/N5.html"
    assert (unit.id, unit.layer, unit.number, unit.kind) == ("tiny/L1/N5", 1, 5, "mlp")
    assert {unit, atlas["L1/N5"]} == {unit}


def test_iteration_goes_through_all_units_in_order(atlas: Atlas) -> None:
    addresses = [(unit.layer, unit.number) for unit in atlas]
    assert addresses == [(layer, unit) for layer in (0, 1) for unit in range(24)]
    assert [unit.number for unit in atlas[1]] == list(range(24))


def test_a_file_is_read_when_it_is_looked_at_and_once(tiny_site: Path, read: list[str]) -> None:
    atlas = atlas_builder.open(tiny_site)
    layer = atlas[1]
    assert (len(layer), len(atlas), (1, 3) in atlas, 3 in layer, bool(repr(atlas))) == (24, 48, True, True, True)
    assert read == ["atlas.json"]
    units = iter(layer)
    next(units)
    assert read[1:] == ["L1/N0.json"]
    assert len(atlas.units) == 48
    assert atlas[1, 0].number == 0
    assert len(atlas.units) == 48
    assert read[2:] == ["tables/units.parquet"]


def test_memory_holds_some_units_only(demo_site: Path, read: list[str]) -> None:
    atlas = atlas_builder.open(demo_site)
    for unit in range(129):
        assert atlas[0, unit].number == unit
    del read[:]
    assert [atlas[0, unit].number for unit in (128, 1, 0)] == [128, 1, 0]
    assert read == ["L0/N0.json"]


def test_behaviours_have_the_numbers_of_the_page(demo_site: Path) -> None:
    atlas = atlas_builder.open(demo_site)
    unit = next(unit for unit in atlas if len(unit.behaviours) > 2)
    page = (demo_site / unit.page).read_text(encoding="utf-8")
    anchors = [int(number) for number in re.findall(r"id=b(\d+)\b", page)]
    assert anchors == [behaviour.id for behaviour in unit.behaviours]
    assert [unit.behaviours[number] for number in anchors] == list(unit.behaviours)
    assert list(reversed(unit.behaviours)) == list(unit.behaviours)[::-1]
    second = unit.behaviours[2]
    assert second in unit.behaviours
    assert second.page == f"{unit.page}#b2"
    assert second.record == unit.record["behaviours"][1]
    assert repr(second).startswith(f"<Behaviour {unit.id}#b2: {second.size} examples, ")
    for number in (0, len(unit.behaviours) + 1, -1, "1", slice(1, 2)):
        with pytest.raises(MissingError, match=f"has no behaviour .*: they are numbered from 1 to {len(anchors)}"):
            unit.behaviours[number]  # type: ignore[index]


def _typed(unit: Unit) -> dict[str, Any]:
    """A record made again from what a unit says."""

    def polysemanticity(found: Any) -> dict[str, Any]:
        return {name: getattr(found, name) for name in found.__slots__}

    return {
        "id": unit.id,
        "layer": unit.layer,
        "unit": unit.number,
        "kind": unit.kind,
        "stats": {
            **{name: getattr(unit.stats, name) for name in ("max", "min", "mean", "std", "density", "tokens")},
            "histogram": {
                "edges": list(unit.stats.histogram.edges),
                "counts": list(unit.stats.histogram.counts),
            },
        },
        "polysemanticity": polysemanticity(unit.polysemanticity),
        "negative": unit.negative and {"polysemanticity": polysemanticity(unit.negative.polysemanticity)},
        "behaviours": [
            {
                **{name: getattr(behaviour, name) for name in ("id", "sign", "size", "coverage", "stability", "label")},
                "tokens": [list(token) for token in behaviour.tokens],
                "next": [list(token) for token in behaviour.next],
                "central": behaviour.central.place,
                "examples": [example.place for example in behaviour.examples],
                "neighbours": [
                    {
                        **{name: getattr(neighbour, name) for name in ("id", "similarity", "wiring")},
                        "behaviour": neighbour.behaviour.id,
                    }
                    for neighbour in behaviour.neighbours
                ],
            }
            for behaviour in unit.behaviours
        ],
        "bands": [
            {
                **{name: getattr(band, name) for name in ("drawn", "novelty", "p")},
                "quantiles": list(band.quantiles),
                "range": list(band.range),
                "examples": [example.place for example in band.examples],
            }
            for band in unit.bands
        ],
        "middle_differs": unit.middle_differs,
        "examples": [
            {
                **{name: getattr(example, name) for name in ("document", "position", "key")},
                "tokens": list(example.tokens),
                "values": list(example.values),
                "behaviour": example.behaviour and example.behaviour.id,
                **({"source": example.source} if example.source is not None else {}),
                **({"importance": list(example.importance)} if example.importance else {}),
            }
            for example in unit.examples
        ],
        "logits": {side: [list(token) for token in getattr(unit.logits, side)] for side in ("positive", "negative")},
        "prediction": unit.prediction
        and {name: value for name, value in asdict(unit.prediction).items() if value is not None},
        "steering": unit.steering
        and {
            "value": unit.steering.value,
            **{side: [list(token) for token in getattr(unit.steering, side)] for side in ("more", "less")},
        },
        "associations": unit.associations
        and {**asdict(unit.associations), "found": [_named(one) for one in unit.associations.found]},
        "hash": unit.hash,
    }


def _named(association: Association) -> dict[str, Any]:
    """An association made again; of a token it has no field, of a field no token."""
    return {name: value for name, value in asdict(association).items() if value is not None}


def test_all_that_a_record_says_is_at_hand(tiny_site: Path, demo_site: Path) -> None:
    for place, step in ((tiny_site, 1), (demo_site, 31)):
        atlas = atlas_builder.open(place)
        for layer in atlas.layers:
            for number in range(0, len(layer), step):
                unit = layer[number]
                rest = {name: value for name, value in unit.record.items() if name not in ("schema", "atlas")}
                assert _typed(unit) == rest


def test_what_is_below_zero_is_at_hand(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    record = _record(site, "L0/N0")
    record["negative"] = {"polysemanticity": {**record["polysemanticity"], "behaviours": 7, "of a later edition": 1}}
    _write(site, "L0/N0", record)
    atlas = atlas_builder.open(site)
    assert atlas[0, 1].negative is None
    assert atlas[0, 0].negative is not None
    assert atlas[0, 0].negative.polysemanticity.behaviours == 7


def test_the_graph_of_a_behaviour_is_at_hand(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    record = _record(site, "L0/N0")
    nodes: list[dict[str, Any]] = [
        {"tokens": [" cat", " dog"], "next": None, "value": 0.75},
        {"tokens": [], "next": 0, "value": None},
        {"tokens": ["The"], "next": 1, "value": 1.0},
    ]
    record["behaviours"][0]["graph"] = {"nodes": nodes, "more": 2}
    _write(site, "L0/N0", record)
    atlas = atlas_builder.open(site)
    assert atlas[0, 1].behaviours[1].graph is None
    graph = atlas[0, 0].behaviours[1].graph
    assert graph is not None
    assert [asdict(node) | {"tokens": list(node.tokens)} for node in graph.nodes] == nodes
    assert graph.more == 2
    assert [[node.tokens for node in branch] for branch in graph.branches] == [
        [(" cat", " dog")],
        [("The",), (), (" cat", " dog")],
    ]
    record["behaviours"][0]["graph"] = None
    _write(site, "L0/N0", record)
    assert atlas_builder.open(site)[0, 0].behaviours[1].graph is None


def test_neighbours_are_followed_to_where_their_page_leads(demo_site: Path) -> None:
    atlas = atlas_builder.open(demo_site)
    found = [near for unit in atlas[2] for behaviour in unit.behaviours for near in behaviour.neighbours][:50]
    assert len(found) == 50
    for neighbour in found:
        assert neighbour.unit.id == neighbour.id
        assert neighbour.behaviour.unit == neighbour.unit
        assert repr(neighbour).startswith(f"<Neighbour {neighbour.id}#b{neighbour.behaviour.id}: similarity ")


def test_an_example_is_a_line_with_its_key_token_marked(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    record = _record(site, "L0/N0")
    record["examples"][0] |= {
        "tokens": ["a", " cat\n", "<0xC3>", "<0xA9>", " \x1b[31m", " sat", "\u202e"],
        "values": [0, 0, 0, 0, 0, 3.5, 0],
        "key": 5,
    }
    _write(site, "L0/N0", record)
    example = atlas_builder.open(site)[0, 0].examples[0]
    assert str(example) == "a cat↵é U+001B[31m« sat»U+202E"
    assert example.text == "a cat\né \x1b[31m sat\u202e"
    assert example.value == 3.5
    assert repr(example) == "<Example 0 of tiny/L0/N0: a cat↵é U+001B[31m« sat»U+202E>"


def test_hostile_text_does_nothing_to_a_terminal(hostile_site: Path) -> None:
    shown = []
    atlas = atlas_builder.open(hostile_site)
    for unit in atlas:
        for example in unit.examples:
            shown += [str(example), repr(example)]
        shown += map(repr, unit.behaviours)
    text = "".join([*shown, repr(atlas)])
    assert "U+202E" in text
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", text)


def test_a_record_is_verified_when_asked(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    record = _record(site, "L0/N2")
    record["stats"]["max"] += 1
    _write(site, "L0/N2", record)
    atlas = atlas_builder.open(site)
    assert atlas[0, 2].hash == record["hash"]
    with pytest.raises(SiteError, match="tiny/L0/N2: hash does not match the content"):
        atlas[0, 2].verify()
    for unit in atlas[1]:
        unit.verify()


def test_the_tables_come_with_the_atlas(atlas: Atlas) -> None:
    units, behaviours = atlas.units, atlas.behaviours
    assert units["id"].to_pylist() == [unit.id for unit in atlas]
    assert units["max"].to_pylist() == [unit.stats.max for unit in atlas]
    assert behaviours["page"].to_pylist() == [behaviour.page for unit in atlas for behaviour in unit.behaviours]
    assert sum(units["behaviours"].to_pylist()) == len(behaviours)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (9, "tiny has no layer 9: its layers are 0, 1."),
        (-1, "tiny has no layer -1: its layers are 0, 1."),
        ((9, 1), "tiny has no layer 9"),
        ((1, 24), "tiny/L1 has no unit 24: they are 0 to 23."),
        ((1, -1), "tiny/L1 has no unit -1"),
        ("L1/N24", "tiny/L1 has no unit 24"),
        ("other/L1/N2", "'other/L1/N2' is not a unit of this atlas: use an id like tiny/L3/N512."),
        ("L1/N2.html", "is not a unit of this atlas"),
        ((1, 2, 3), "use atlas[layer] or atlas[layer, unit]."),
        ((), "is not a key of an atlas"),
        (1.0, "is not a key of an atlas"),
        (None, "is not a key of an atlas"),
    ],
)
def test_what_an_atlas_does_not_have_is_said_in_a_sentence(tiny_site: Path, key: Any, said: str) -> None:
    atlas = atlas_builder.open(tiny_site)
    with pytest.raises(KeyError) as caught:
        atlas[key]
    assert isinstance(caught.value, AtlasError)
    assert said in str(caught.value)
    assert key not in atlas


def test_what_an_atlas_has_is_in_it(tiny_site: Path) -> None:
    atlas = atlas_builder.open(tiny_site)
    assert 1 in atlas
    assert (1, 23) in atlas
    assert "tiny/L1/N23" in atlas
    assert 23 in atlas[1]
    assert 24 not in atlas[1]


@pytest.mark.parametrize("ending", ["", "/", "/index.html", "/atlas.json", "/index.html#top", "/?q=a"])
def test_an_atlas_is_opened_by_any_address_of_it(tiny_site: Path, copy_of: Callable[[Path], Path], ending: str) -> None:
    below = copy_of(tiny_site)
    (below.parent / "index.html").write_text("another site", encoding="utf-8")
    with _served(below.parent) as address:
        atlas = atlas_builder.open(f"{address}/tiny{ending}")
        assert atlas[1, 2].url == f"{address}/tiny/L1/N2.html"
        assert atlas[1].url == f"{address}/tiny/L1/index.html"
    if "?" not in ending:
        assert atlas_builder.open(tiny_site.as_uri() + ending)[1, 2].url == (tiny_site / "L1/N2.html").as_uri()


def test_a_path_may_be_text_relative_or_of_the_first_page(tiny_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_site.parent)
    for place in (tiny_site.name, Path(tiny_site.name), f"{tiny_site.name}/index.html", f"./{tiny_site.name}/"):
        assert atlas_builder.open(place).url == (tiny_site / "index.html").as_uri()
    assert source("https://example.org/ä b/") == HttpSource("https://example.org/%C3%A4%20b/")


def test_where_there_is_no_atlas_that_is_said(tiny_site: Path, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", tiny_site / "L0" / "N0.json"):
        with pytest.raises(
            SiteError, match=r"is not a built atlas \(atlas.json is not found\): name the folder or address"
        ):
            atlas_builder.open(place)
    with (
        _served(tiny_site) as address,
        pytest.raises(SiteError, match=f"{address}/nowhere/ is not a built atlas"),
    ):
        atlas_builder.open(f"{address}/nowhere")
    with pytest.raises(SiteError, match=r"cannot be read: .*refused"):
        atlas_builder.open(address)
    for wrong in ("http://[x", "http://", "https://a b/"):
        with pytest.raises(SiteError, match=r"is not an address|cannot be read"):
            atlas_builder.open(wrong)


def test_a_server_that_fails_is_quoted(tiny_site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atlas_builder.site.hosting import serve

    monkeypatch.setattr(serve._Handler, "do_GET", lambda self: self.send_error(503))
    with (
        _served(tiny_site) as address,
        pytest.raises(SiteError, match="the server returns 503 Service Unavailable"),
    ):
        atlas_builder.open(address)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "is not JSON"),
        (b"[]", "has the schema None"),
        (b'{"schema": "atlas/2"}', "has the schema 'atlas/2', this version of Atlas Builder reads 'atlas/1'"),
        (b'{"schema": "atlas/1", "atlas": {}}', r"is incomplete \('id'\)"),
    ],
)
def test_an_atlas_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "atlas.json").write_bytes(content)
    with pytest.raises(SiteError, match=said) as caught:
        atlas_builder.open(tmp_path)
    assert "atlas.json" in str(caught.value)


def test_a_record_that_cannot_be_read_is_named(tiny_site: Path, copy_of: Callable[[Path], Path]) -> None:
    site = copy_of(tiny_site)
    (site / "L0/N0.json").unlink()
    (site / "L0/N1.json").write_bytes(b"{")
    _write(site, "L0/N2", {**_record(site, "L0/N2"), "schema": "neuron-record/2"})
    _write(site, "L0/N3", _record(site, "L1/N3"))
    (site / "tables/units.parquet").unlink()
    (site / "tables/behaviours.parquet").write_bytes(b"PAR1")
    for opened in (site, None):
        with _served(site) as address:
            atlas = atlas_builder.open(opened or address)
            for number, said in enumerate(
                ("N0.json is missing", "N1.json is not JSON", "has the schema 'neuron-record/2'", "of another unit")
            ):
                with pytest.raises(SiteError, match=said):
                    atlas[0, number]
            with pytest.raises(SiteError, match=r"units.parquet is missing"):
                _ = atlas.units
            with pytest.raises(SiteError, match=r"behaviours.parquet is not a Parquet file"):
                _ = atlas.behaviours


def test_units_go_to_other_processes(tiny_site: Path) -> None:
    atlas = atlas_builder.open(tiny_site)
    unit = pickle.loads(pickle.dumps(atlas[1, 5]))
    assert unit.record == atlas[1, 5].record
    assert unit.behaviours[1].label == atlas[1, 5].behaviours[1].label
    assert unit.atlas[0, 3].record == atlas[0, 3].record
