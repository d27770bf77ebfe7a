"""`curate`: examples from a part of a unit's range, by hand and by `verify --curated`."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from atlas_builder.cli import main
from atlas_builder.collect.results import Collected
from atlas_builder.curate.draws import LayerDraws
from atlas_builder.curate.run import curate
from atlas_builder.errors import ConfigurationError
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.verify.curated import verify_curated
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure

Lines = list[dict[str, Any]]


def lines_of(file: Path) -> Lines:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def test_lines_are_own_positions_of_the_lowest_tenth(logits_site: Path, tmp_path: Path) -> None:
    collected = Collected(work_folder(logits_site) / "collect")
    (layer,) = collected.layers
    own = layer.own
    assert own is not None
    file = tmp_path / "middle.jsonl"
    written = curate(logits_site, file, quantiles=(0.0, 0.5), number=10**6)
    lines = lines_of(file)
    assert written.lines == len(lines) > 0
    for unit in range(layer.units):
        values = np.sort(own["value"][own["unit"] == unit])
        its = [line for line in lines if line["unit"] == f"logits/L{layer.layer}/N{unit}"]
        edge = values[math.ceil(0.5 * len(values))] if len(values) else 0
        assert len(its) == np.count_nonzero(values < edge)
        for line in its:
            assert line["next"] == line["token"]
            assert line["side"] == "own"
            assert line["quantile"] < 0.5
    texts = collected.token_texts
    for line in lines:
        (context,) = np.flatnonzero(
            (collected.contexts.document == line["document"]) & (collected.contexts.offset <= line["position"])
        )[-1:]
        start = int(collected.contexts.starts[context])
        place = start + line["position"] - int(collected.contexts.offset[context])
        first = max(start, place - 20)
        end = min(int(collected.contexts.starts[context + 1]), place + 11)
        assert line["text"] == "".join(texts[token] for token in collected.contexts.tokens[first:end])
        low, high = line["span"]
        assert line["text"][low:high] == texts[collected.contexts.tokens[place]]


@pytest.mark.parametrize("side", ["own", "others"])
def test_every_line_is_verified_and_no_altered_one(side: Any, logits_site: Path, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    curate(logits_site, file, side=side, quantiles=(0.1, 0.9), number=2)
    lines = lines_of(file)
    assert verify_curated(logits_site, file).problems == []
    alterations: list[Callable[[dict[str, Any]], object]] = [
        lambda line: line.update(activation=line["activation"] * 1.5 + 1),
        lambda line: line.update(quantile=line["quantile"] + 0.5),
        lambda line: line.update(side="others" if side == "own" else "own"),
        lambda line: line.update(next="nothing"),
        lambda line: line.update(text=line["text"] + "!"),
        lambda line: line.update(span=[0, 0]),
        lambda line: line.update(position=10**6),
        lambda line: line.update(document=0.5),
        lambda line: line.update(unit="logits/L9/N9"),
        lambda line: line.update(token="<b>"),
        lambda line: line.update(attributes={"a": "b"}),
        lambda line: line.update(source="elsewhere"),
        lambda line: line.update(url="https://example.org/other"),
        lambda line: line.pop("seed"),
    ]
    for alter in alterations:
        altered = [dict(line) for line in lines]
        alter(altered[1])
        file.write_bytes(b"\n".join(map(orjson.dumps, altered)))
        problems = verify_curated(logits_site, file).problems
        assert problems
        assert all("line 2" in problem for problem in problems)
    file.write_bytes(b"\n".join(map(orjson.dumps, [lines[0], lines[0]])) + b"\nno JSON\n")
    assert [problem[:6] for problem in verify_curated(logits_site, file).problems] == ["line 3", "line 2"]


def test_the_same_bytes_from_one_shard_and_from_three(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    files = []
    for of in (1, 3):
        settings = configure(
            describe={"importance": "none", "prediction": False, "associations": True}, link={"map": False}
        )
        output = tmp_path / str(of) / "neurons"
        if of > 1:
            for number in range(1, of + 1):
                shards.collect_shard(settings, output, number, of)
            shards.merge_shards(settings, output)
        build(settings, output, executor=pool)
        files.append(tmp_path / f"{of}.jsonl")
        curate(output, files[-1], quantiles=(0.5, 0.9), number=3, seed=7)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert verify_curated(tmp_path / "1" / "neurons", files[0]).problems == []
    report = tmp_path / "associations.csv"
    curate(tmp_path / "1" / "neurons", files[0], report=report)
    with report.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["unit", "token", "association"]
    assert all(json.loads(row[2]) for row in rows)


def test_the_command_says_what_it_wrote(logits_site: Path, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    outcome = CliRunner().invoke(
        main, ["curate", str(logits_site), "-u", "L2/N0", "-u", "L2/N10", "--number", "3", "--output", str(file)]
    )
    assert outcome.exit_code == 0, outcome.output
    assert f"3 examples: {file}; fewer than 3 of L2/N10" in outcome.output
    outcome = CliRunner().invoke(main, ["verify", str(logits_site), "--curated", str(file)])
    assert outcome.exit_code == 0, outcome.output
    assert "all claims hold" in outcome.output


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"quantiles": (0.5, 0.1)}, "give two that rise"),
        ({"quantiles": (0.0, 1.5)}, "give two that rise"),
        ({"units": ["L9/N0"]}, "no such unit"),
        ({"units": ["nothing"]}, "no id of this atlas"),
        ({"side": "positive"}, "have own or others"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    choice: dict[str, Any], sentence: str, logits_site: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        curate(logits_site, tmp_path / "lines.jsonl", **choice)


def test_nothing_else_is_replaced_and_results_are_required(
    logits_site: Path, tiny_site: Path, copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds something else"):
        curate(logits_site, other)
    assert other.read_text(encoding="utf-8") == "mine"
    with pytest.raises(ConfigurationError, match=r"describe\.associations=true"):
        curate(tiny_site, tmp_path / "lines.jsonl")
    with pytest.raises(ConfigurationError, match="not a file"):
        verify_curated(logits_site, tmp_path / "none.jsonl")
    moved = tmp_path / "moved"
    copy_of(logits_site).rename(moved)
    with pytest.raises(ConfigurationError, match="no results of its build beside it"):
        curate(moved, tmp_path / "lines.jsonl")


def test_files_are_checked_before_anything_is_written(logits_site: Path, tmp_path: Path) -> None:
    lines, report = tmp_path / "lines.jsonl", tmp_path / "associations.csv"
    report.write_text("mine\n", encoding="utf-8")
    pipe, folder, link = tmp_path / "pipe", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(report)
    for output, table in (
        (lines, report),
        (lines, link),
        (lines, folder),
        (lines, pipe),
        (lines, lines),
        (lines, tmp_path / "none" / "associations.csv"),
        (pipe, None),
        (folder, None),
        (Path(os.devnull), None),
        (tmp_path / "none" / "lines.jsonl", None),
    ):
        with pytest.raises(ConfigurationError, match=r"another|cannot be written"):
            curate(logits_site, output, report=table)
    assert report.read_text(encoding="utf-8") == "mine\n"
    assert not lines.exists()
    wrongs: list[dict[str, Any]] = [{"seed": -1}, {"seed": 2**63}, {"number": 0}]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match="give"):
            curate(logits_site, lines, **wrong)


def test_a_stopped_run_leaves_the_former_file_and_no_draft_nor_follows_links(
    logits_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, precious = tmp_path / "lines.jsonl", tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    file.with_name(".lines.jsonl.draft").symlink_to(precious)
    curate(logits_site, file, number=2)
    before = file.read_bytes()
    monkeypatch.setattr(LayerDraws, "between", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        curate(logits_site, file, number=3)
    assert file.read_bytes() == before
    assert precious.read_text(encoding="utf-8") == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"lines.jsonl", "precious"}


@pytest.mark.parametrize(
    "change",
    [
        {"document": True},
        {"position": False},
        {"activation": True},
        {"document": -1, "position": -1},
        {"document": 0, "position": -1},
        {"document": 10**30},
        {"document": 2**64 - 1, "position": 2**64 - 1},
        {"quantile": -(2**63)},
        {"quantiles": [True, 1]},
        {"quantiles": [0.9, 0.1]},
        {"quantiles": [-5, 5]},
        {"quantiles": [[0], 1]},
        {"unit": "logits/L" + "1" * 5000 + "/N0"},
        {"unit": "logits/L02/N000"},
        {"unit": "logits/L\u0662/N\u0660"},
        {"attributes": {"a": [[[]]]}},
        {"span": ["0", 1]},
        {"text": "\x1b[31m" * 10_000},
    ],
    ids=str,
)
def test_odd_values_are_named_in_one_short_line(change: dict[str, Any], logits_site: Path, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    curate(logits_site, file, units=["L2/N0"], number=1)
    (line,) = lines_of(file)
    file.write_text(json.dumps(line | change), encoding="utf-8")
    problems = verify_curated(logits_site, file).problems
    assert problems
    assert all(problem.startswith("line 1: ") and problem.isprintable() for problem in problems)
    assert max(map(len, problems)) < 300


def test_others_are_within_the_edges_of_few_own_positions(logits_site: Path, tmp_path: Path) -> None:
    """Between the edges of a band there may be one own position more than its quantiles say."""
    file = tmp_path / "lines.jsonl"
    for quantiles in ((0.0, 0.1), (0.35, 0.4)):
        curate(logits_site, file, side="others", quantiles=quantiles, number=30)
        lines = lines_of(file)
        assert verify_curated(logits_site, file).problems == []
        if quantiles[0]:
            moved = [line | {"quantiles": [0.98, 0.99]} for line in lines]
            file.write_bytes(b"\n".join(map(orjson.dumps, moved)))
            assert len(verify_curated(logits_site, file).problems) > len(lines) / 2


def test_lines_are_read_as_editors_and_hostile_hands_leave_them(logits_site: Path, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    curate(logits_site, file, units=["L2/N0"], number=2)
    first, second = file.read_bytes().splitlines()
    file.write_bytes(b"\xef\xbb\xbf" + first + b"\r\n" + second)
    assert verify_curated(logits_site, file).problems == []
    endless = b'{"text": "' + b"x" * 21_000_000 + b'"}'
    infinite = b'{"activation": NaN}\n{"quantile": 1e999}\n' + b"[" * 100_000 + b"]" * 100_000
    file.write_bytes(b"\n".join([endless, first, infinite, second]))
    problems = verify_curated(logits_site, file).problems
    assert [problem.split(":")[0] for problem in problems] == ["line 1", "line 3", "line 4", "line 5"]
    assert "longer than" in problems[0]
    for broken in (b"\0" * 1000, b"PAR1" + first, b""):
        file.write_bytes(broken)
        with pytest.raises(ConfigurationError, match=r"curate wrote|no line"):
            verify_curated(logits_site, file)
