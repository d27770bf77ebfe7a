"""An atlas of conversations, from lines of JSON to pages, and what `check` and `verify` say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.parquet import read_table

from atlas_builder.collect.results import Collected
from atlas_builder.corpus.token_text import join_tokens
from atlas_builder.curate.run import curate
from atlas_builder.errors import ConfigurationError, CorpusError
from atlas_builder.models import memory
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.records.schema import content_hash, serialise
from atlas_builder.site.hosting.check import check
from atlas_builder.verify.curated import verify_curated
from atlas_builder.verify.run import verify
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Listener, digests, records_of
from tests.support.chats import conversations, write_lines

Record = dict[str, Any]


def _examples(site: Path) -> Iterator[Record]:
    for record in records_of(site):
        yield from record["examples"]


def test_roles_are_shown_and_special_tokens_are_no_examples(chat_site: Path) -> None:
    roles, special = set(), 0
    for example in _examples(chat_site):
        roles.add(example["role"])
        own = example.get("special", [])
        special += len(own)
        assert example["key"] not in own
        assert all(place in own for place, token in enumerate(example["tokens"]) if token == "<|endoftext|>")
    facts = json.loads((chat_site / "atlas.json").read_bytes())["corpus"]
    assert roles == {*facts["chat"]["roles"]} == {"user", "assistant", "system"}
    assert special > 100
    page = (chat_site / "L0" / "N0.html").read_text(encoding="utf-8")
    assert "<cite>user · talks.jsonl:" in page or "<cite>assistant · talks.jsonl:" in page
    assert "<small>" in page
    assert "through the model’s chat template" in (chat_site / "index.html").read_text(encoding="utf-8")


def test_the_table_of_examples_says_the_same_roles_as_the_records(chat_site: Path) -> None:
    columns = ("id", "document", "position", "role")
    table = read_table(chat_site / "tables" / "examples.parquet", columns=list(columns))
    rows = {row[:3]: row[3] for row in zip(*(table[name].to_pylist() for name in columns), strict=True)}
    shown = {
        (record["id"], example["document"], example["position"]): example["role"]
        for record in records_of(chat_site)
        for example in record["examples"]
        if example["behaviour"] is not None  # others may be of a band
    }
    assert len(shown) > 100
    assert {place: rows[place] for place in shown} == shown


def test_what_counts_is_what_stands_in_messages(chat_site: Path) -> None:
    facts = json.loads((chat_site / "atlas.json").read_bytes())["corpus"]
    collected = Collected(work_folder(chat_site) / "collect")
    read = collected.contexts
    assert read.special is not None
    assert read.roles is not None
    texts = np.array(collected.token_texts)[read.tokens]
    borders = np.flatnonzero(np.diff(read.special)) + 1
    runs = zip(np.split(texts, borders), np.split(read.special, borders), strict=True)
    said = {join_tokens(run.tolist()) for run, special in runs if not special[0]}
    whole = " ".join(str(line["talk"]) for line in conversations())
    assert all(text.strip() in whole for text in said)
    assert "Be of use." in "".join(texts[read.special])
    assert facts["chat"]["counted"] == int((~read.special).sum()) == read.counted < facts["tokens"]
    assert all(record["stats"]["tokens"] == read.counted for record in records_of(chat_site))
    assert (read.roles[~read.special] > 0).all()


def test_an_atlas_of_conversations_is_sound_and_what_it_claims_holds(chat_site: Path) -> None:
    assert check(chat_site, Progress(quiet=True)).problems == []
    report = verify(chat_site, units=12, seed=2)
    assert report.problems == []
    assert report.compared["roles"] > 100


def _another_role(record: Record) -> None:
    record["examples"][0]["role"] = "user" if record["examples"][0]["role"] == "assistant" else "assistant"


def _a_token_that_is_not_special(record: Record) -> None:
    example = record["examples"][0]
    place = 0 if example["key"] else 1
    own = set(example.get("special", []))
    example["special"] = sorted(own ^ {place})


def _statistics_with_special_tokens(record: Record) -> None:
    record["stats"]["tokens"] += 1


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (_another_role, "its role is published as"),
        (_a_token_that_is_not_special, "other tokens are published as the chat template's own"),
        (_statistics_with_special_tokens, "tokens is published as"),
    ],
)
def test_verify_finds_what_was_altered(
    chat_site: Path, copy_of: Callable[[Path], Path], alter: Callable[[Record], None], said: str
) -> None:
    site = copy_of(chat_site)
    for file in site.glob("L*/N*.json"):
        record = json.loads(file.read_bytes())
        if record["examples"]:
            alter(record)
        record["hash"] = content_hash(record)
        file.write_bytes(serialise(record))
    settings = json.loads((work_folder(chat_site) / "configuration.json").read_bytes())
    place = (f"model.name={settings['model']['name']}", f"corpus.path={settings['corpus']['path']}")
    report = verify(site, units=3, overrides=place)
    assert any(said in problem for problem in report.problems)


def test_shards_make_the_same_bytes(
    configure_chat: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BATCH_TOKENS", 128)
    build(configure_chat(), tmp_path / "whole", until="collect", executor=pool)
    folders = [shards.collect_shard(configure_chat(), tmp_path / "parts", number, 3) for number in (1, 2, 3)]
    shards.merge_shards(configure_chat(), tmp_path / "parts", folders)
    assert digests(work_folder(tmp_path / "parts") / "collect") == digests(work_folder(tmp_path / "whole") / "collect")


def test_the_engine_of_the_device_gives_way_to_loops(
    configure_chat: Configure, chat_site: Path, tmp_path: Path
) -> None:
    said = Listener()
    build(configure_chat(model={"engine": "device"}), tmp_path / "site", until="collect", progress=said)
    assert any("activations on chat text are looked at by loops" in line for line in said.lines)
    wanted = digests(work_folder(chat_site) / "collect")
    assert digests(work_folder(tmp_path / "site") / "collect") == wanted


def test_output_neurons_of_conversations_hold(configure_chat: Configure, pool: Executor, tmp_path: Path) -> None:
    settings = configure_chat(units={"kind": "logits", "top": 8}, describe={"importance": "none"})
    site = build(settings, tmp_path / "site", executor=pool)
    assert check(site, Progress(quiet=True)).problems == []
    assert verify(site, units=8).problems == []
    assert all(
        token["text"] != "<|endoftext|>" for token in json.loads((site / "atlas.json").read_bytes())["output_tokens"]
    )
    curated = curate(site, side="others", quantiles=(0.5, 1), number=50)
    lines = [json.loads(line) for line in curated.file.read_text(encoding="utf-8").splitlines()]
    assert {line["role"] for line in lines} == {"user", "assistant", "system"}
    said = lines[3]["role"]
    assert verify_curated(site, curated.file).problems == []
    lines[3]["role"] = "judge"
    write_lines(curated.file, lines)
    assert verify_curated(site, curated.file).problems == [f"line 4: role is 'judge', but should be {said!r}"]


def test_a_model_without_a_template_is_refused_before_any_work(
    configure_chat: Configure, gpt2_folder: Path, tmp_path: Path
) -> None:
    missing = configure_chat(model={"name": str(gpt2_folder)})
    with pytest.raises(ConfigurationError, match="has no chat template: choose a chat model"):
        build(missing, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_conversation_that_the_template_does_not_take_ends_the_build_or_is_skipped(
    configure_chat: Configure, tmp_path: Path
) -> None:
    twice = {"talk": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}
    path = write_lines(tmp_path / "talks.jsonl", [*conversations(), twice])
    with pytest.raises(
        CorpusError, match=r"does not take document talks\.jsonl:41 \(Conversation roles must alternate"
    ):
        build(configure_chat(corpus={"path": str(path)}), tmp_path / "site", until="collect")
    said = Listener()
    settings = configure_chat(corpus={"path": str(path), "on_error": "skip"})
    build(settings, tmp_path / "site", until="collect", progress=said)
    assert "skipped 1 broken lines" in " ".join(said.lines)


def test_a_text_of_nothing_but_the_templates_own_tokens_is_refused(configure_chat: Configure, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="all tokens are the chat template's own"):
        build(configure_chat(corpus={"max_tokens": 3}), tmp_path / "site", until="collect")
