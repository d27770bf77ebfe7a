from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from markupsafe import Markup

from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.rounding import percent
from atlas_builder.site.hosting.check import check
from atlas_builder.site.html import markup
from atlas_builder.site.map import Map, preview, write_map
from atlas_builder.workspace import work_folder
from tests.support.map import read_map, unpack


def draw(places: list[list[float]], words: list[list[str]] | None = None, layers: int = 1) -> Map:
    """One unit a layer, behaviours shared out evenly; the last layer gets the rest."""
    total = len(places)
    counts = np.full(layers, total // layers)
    counts[-1] += total - counts.sum()
    return Map(
        layers=[(layer, 1) for layer in range(layers)],
        counts=counts,
        effective=np.ones(layers),
        places=np.array(places, dtype=np.float32).reshape(-1, 2),
        key_words=words or [[] for _ in places],
    )


def scattered(count: int, layers: int = 3) -> Map:
    chance = np.random.default_rng(0)
    return draw(chance.random((count, 2)).tolist(), [[f"w{place % 7}"] for place in range(count)], layers)


def test_the_data_lead_to_the_same_addresses_as_the_records(tiny_site: Path) -> None:
    data = read_map(tiny_site / "map" / "points.js")
    counts, effective = unpack(data["counts"]), unpack(data["effective"])
    units = [(layer, unit) for layer, own in data["layers"] for unit in range(own)]
    assert len(units) == len(counts) == len(effective) == len(list(tiny_site.glob("L*/N*.json")))
    for (layer, unit), count, many in zip(units, counts.tolist(), effective.tolist(), strict=True):
        record = json.loads((tiny_site / UnitAddress(layer, unit).record).read_bytes())
        assert [behaviour["id"] for behaviour in record["behaviours"]] == list(range(1, count + 1))
        assert many == round(100 * (record["polysemanticity"]["effective_behaviours"] or 0))


def test_the_data_hold_the_places_of_the_link_stage(tiny_site: Path) -> None:
    found = unpack(read_map(tiny_site / "map" / "points.js")["places"]).reshape(-1, 2)
    wanted = np.load(work_folder(tiny_site) / "link" / "map.npy")
    assert found.shape == wanted.shape
    assert np.abs(found / 65_534 - wanted).max() < 1e-5


def test_a_behaviour_without_a_place_is_left_out(tmp_path: Path) -> None:
    drawn = draw([[0, 0.5], [float("nan")] * 2, [1, 0.5]])
    write_map(tmp_path, drawn)
    assert unpack(read_map(tmp_path / "points.js")["places"]).tolist() == [0, 32767, 65535, 65535, 65534, 32767]
    assert drawn.placed == 2
    assert "Map of 2 behaviours" in drawn.picture


def test_nothing_makes_no_picture(tmp_path: Path) -> None:
    for drawn in (draw([]), draw([[float("nan")] * 2])):
        write_map(tmp_path, drawn)
        assert drawn.picture == preview(drawn.picture) == Markup("")
        assert drawn.words == []


@pytest.mark.parametrize("count", [1, 2, 500])
def test_all_on_one_spot_is_a_picture_of_one_dot(count: int) -> None:
    assert draw([[0.5, 0.5]] * count).picture.count("h0") == 1


def test_a_large_map_is_drawn_in_little() -> None:
    picture = scattered(50_000, layers=12).picture
    assert len(picture) < 100_000
    parser = html5lib.HTMLParser(strict=True)
    parser.parseFragment(preview(scattered(300).picture))
    assert "style=" not in picture


def test_a_dot_has_the_colour_of_the_layer_most_are_of_and_grows_with_their_number() -> None:
    crowd = [[0.0, 0.5]] * 9 + [[1.0, 0.5]] * 4 + [[1.0, 0.5]] * 5 + [[0.5, 0.5]]
    drawn = Map([(0, 1), (1, 1)], np.array([13, 6]), np.ones(2), np.array(crowd, np.float32), [[]] * 19)
    dots = dict(re.findall(r'<path class="(m\d d\d)" d="m(\d+) ', drawn.picture))
    assert dots == {"m0 d4": "5", "m6 d4": "825", "m6 d1": "425"}


def test_words_stand_where_their_behaviours_are() -> None:
    chance = np.random.default_rng(0)
    left, right = 0.05 + 0.1 * chance.random((30, 2)), 0.85 + 0.1 * chance.random((30, 2))
    # What all have tells nothing of a place.
    words = [["the", "cat"]] * 30 + [["the", "dog"]] * 30
    found = draw(np.concatenate([left, right]).tolist(), words).words
    assert {word.word for word in found} == {"cat", "dog"}
    first = {word.word: (word.x, word.y) for word in found if word.level == 0}
    for word, own in (("cat", left), ("dog", right)):
        assert np.abs(own - first[word]).sum(axis=1).min() < 1e-6  # on one of them,
        assert first[word] == pytest.approx(np.median(own, axis=0), abs=0.03)  # amid the others


def test_a_word_of_few_is_not_written() -> None:
    assert draw([[0.1, 0.1]] * 3 + [[0.9, 0.9]] * 50, [["rare"]] * 3 + [["common"]] * 50).words[0].word == "common"
    assert not draw([[0.1, 0.1]] * 3, [["rare"]] * 3).words


def _regions_slowly(drawn: Map) -> list[tuple[str, list[tuple[str, str]]]]:
    """Of each word the six nearest behaviours: all of them by distance, then as they are numbered."""
    every = []
    number = 0
    counts = iter(drawn.counts.tolist())
    for layer, units in drawn.layers:
        for unit in range(units):
            for behaviour in range(1, next(counts) + 1):
                x, y = map(float, drawn.places[number])
                if x == x:
                    every.append((x, y, f"L{layer}/N{unit}.html#b{behaviour}", drawn.labels[number]))
                number += 1
    found = []
    for word in drawn.words[:60]:
        near = sorted(every, key=lambda one: (one[0] - word.x) ** 2 + (one[1] - word.y) ** 2)
        found.append((word.word, [(page, label) for _, _, page, label in near[:6]]))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_regions_tell_the_nearest_behaviours_of_each_word(seed: int) -> None:
    chance = np.random.default_rng(seed)
    total = 400
    # On a coarse grid, so that many are as near as each other; some without a place.
    places = (chance.integers(0, 9, (total, 2)) / 8).astype(np.float32)
    places[chance.random(total) < 0.1] = np.nan
    units = [(0, 5), (3, 7), (4, 4)]
    counts = chance.multinomial(total, np.ones(16) / 16)
    words = [[f"w{chance.integers(12)}"] for _ in range(total)]
    drawn = Map(units, counts, np.ones(16), places, words, [f"label {number}" for number in range(total)])
    found = [(region.word.word, [(one.page, one.label) for one in region.near]) for region in drawn.regions]
    assert found == _regions_slowly(drawn)
    assert found
    assert [one.page.replace(".html#", ".") for region in drawn.regions for one in region.near] == [
        one.name for region in drawn.regions for one in region.near
    ]


def test_few_behaviours_make_regions_of_few() -> None:
    drawn = Map([(0, 1)], np.array([54]), np.ones(1), np.full((54, 2), 0.5, np.float32), [["a"]] * 4 + [["b"]] * 50)
    assert drawn.words
    few = Map([(0, 2)], np.array([4, 0]), np.ones(2), np.full((4, 2), 0.5, np.float32), [["a"]] * 4, list("abcd"))
    assert [len(region.near) for region in few.regions] == [4] * len(few.words)


def test_the_page_tells_the_regions_in_words(demo_site: Path) -> None:
    page = (demo_site / "map.html").read_text(encoding="utf-8")
    tree = html5lib.parse(page, namespaceHTMLElements=False)
    words = read_map(demo_site / "map" / "points.js")["words"][:60]
    items = tree.findall(".//details[@id='regions']/ol/li")
    assert len(items) == len(words) > 0
    for item, (x, y, level, word) in zip(items, words, strict=True):
        heading = " ".join("".join(item.find("h3").itertext()).split())
        shown = " ".join("".join(html5lib.parseFragment(markup(word)).itertext()).split())
        # The data hold four digits of a place, the page's percentages come from all of them.
        wanted = {f"{percent(x + dx)} {percent(y + dy)}" for dx in (-5e-5, 5e-5) for dy in (-5e-5, 5e-5)}
        assert heading in {f"{shown} level {level + 1}, {place}" for place in wanted}
        for link in item.iter("a"):
            unit, behaviour = link.get("href").split(".html#b")
            record = json.loads((demo_site / f"{unit}.json").read_bytes())
            assert link.text == f"{unit}.b{behaviour}"
            assert record["behaviours"][int(behaviour) - 1]["id"] == int(behaviour)
    assert len(page[page.index('<details class="regions"') :].encode()) < 40_000


def test_hostile_words_are_text(tmp_path: Path) -> None:
    word = "</script><script>window.pwned=1</script>"[:24] + "\u202e"
    drawn = draw([[0.5, 0.5]] * 10 + [[0.4, 0.4]] * 10 + [[0, 0], [1, 1]], [[word]] * 10 + [["b"]] * 10 + [[], []])
    assert "<script" not in drawn.picture
    assert "\u202e" not in drawn.picture
    write_map(tmp_path, drawn)
    assert word in [entry[3] for entry in read_map(tmp_path / "points.js")["words"]]


def test_check_knows_the_map(tiny_site: Path, copy_of: Any) -> None:
    site = copy_of(tiny_site)
    (site / "map" / "points.js").write_text("Atlas.map({});\n", encoding="utf-8")
    assert any("map/points.js" in problem for problem in check(site, Progress(quiet=True)).problems)
    (site / "map.html").unlink()
    assert "map.html is missing" in check(site, Progress(quiet=True)).problems


def test_the_map_stands_in_the_sitemap(tiny_site: Path) -> None:
    assert "https://example.org/atlas/map.html" in (tiny_site / "sitemap.xml").read_text(encoding="utf-8")
