from __future__ import annotations

import json
import re
from pathlib import Path

from atlas_builder.site import search
from atlas_builder.site.search import Posting


def _read(path: Path) -> list[object]:
    match = re.fullmatch(r"\w+\((.*)\);\n", path.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    found: list[object] = json.loads(f"[{match[1]}]")
    return found


def test_a_word_is_found_as_typed_by_people() -> None:
    assert [search.search_key(word) for word in (" Import", "\n  ", "   ", "Ä")] == ["import", "↵", "␣", "ä"]


def test_postings_are_weightiest_first_and_name_a_behaviour_once() -> None:
    found = search.postings(
        [
            (" cat", Posting(0, 1, 1, 300)),
            ("Cat", Posting(0, 1, 1, 500)),
            ("cat", Posting(2, 0, 3, 900)),
            ("a", Posting(0, 0, 1, 1)),
        ]
    )
    assert list(found) == ["a", "cat"]
    assert found["cat"] == [Posting(2, 0, 3, 900), Posting(0, 1, 1, 500)]


def test_shards_are_sorted_hold_every_key_and_say_where_they_begin(tmp_path: Path) -> None:
    words = [f"w{number:05}" for number in range(9000)] + ["__proto__", "</script>", "😀"]
    found = search.postings((word, Posting(0, place, 1, 7)) for place, word in enumerate(words))
    search.write(tmp_path, found, {0: [["a label"], []]})
    (index,) = _read(tmp_path / "index.js")
    assert isinstance(index, dict)
    assert index["layers"] == [[0, 2]]
    keys: list[str] = []
    assert len(index["shards"]) > 2
    for number, first in enumerate(index["shards"]):
        place, pairs = _read(tmp_path / f"s{number}.js")
        assert place == number
        assert isinstance(pairs, list)
        assert pairs[0][0] == first
        keys += [key for key, _ in pairs]
    assert keys == sorted(words)
    assert _read(tmp_path / "l0.js") == [0, [["a label"], []]]


def test_a_key_of_too_many_behaviours_says_how_many(tmp_path: Path) -> None:
    found = search.postings(("the", Posting(0, unit, 1, unit)) for unit in range(1000))
    search.write(tmp_path, found, {})
    _, ((_, entry),) = _read(tmp_path / "s0.js")  # type: ignore[misc]
    assert entry[0] == 1000
    assert entry[1:5] == [0, 999, 1, 999]
    assert len(entry) < 2000
