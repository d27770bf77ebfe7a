"""How much of each behaviour a record shows."""

from __future__ import annotations

from pathlib import Path

from tests.support.atlases import records_of


def test_a_rare_behaviour_shows_its_central_example_in_few_words(demo_site: Path) -> None:
    rare = main = 0
    for record in records_of(demo_site):
        examples = record["polysemanticity"]["examples"]
        for behaviour in record["behaviours"]:
            if behaviour["size"] * 20 < examples:
                assert behaviour["examples"] == [behaviour["central"]]
                assert behaviour["neighbours"] == []
                shown = record["examples"][behaviour["central"]]["tokens"]
                # More only where the window would end within a character.
                assert len(shown) <= 8 + 1 + 3 or not all(token.isascii() and "<0x" not in token for token in shown)
                rare += 1
            else:
                assert behaviour["examples"][0] == behaviour["central"]
                main += len(behaviour["examples"]) > 1
    assert rare > 100
    assert main > 100


def test_main_behaviours_come_first(demo_site: Path) -> None:
    for record in records_of(demo_site):
        measures = record["polysemanticity"]
        is_main = [behaviour["size"] * 20 >= measures["examples"] for behaviour in record["behaviours"]]
        assert sum(is_main) == measures["main_behaviours"]
        assert is_main == sorted(is_main, reverse=True)
