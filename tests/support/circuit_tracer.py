"""What reads exports for circuit-tracer: the package's own model of a feature, and plain readers written for tests."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import struct
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

Feature = dict[str, Any]


@pytest.fixture(scope="session")
def feature_model() -> Callable[[Feature], Any]:
    """circuit-tracer's pydantic model of a feature, from its file alone: the package itself loads torch and more."""
    try:
        place = distribution("circuit-tracer").locate_file("circuit_tracer/frontend/feature_models.py")
    except PackageNotFoundError:
        if os.environ.get("CI"):
            pytest.fail("circuit-tracer must be installed where CI runs")
        pytest.skip("circuit-tracer is not installed: pip install --no-deps circuit-tracer==0.5.0")
    spec = importlib.util.spec_from_file_location("feature_models", str(place))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    judge: Callable[[Feature], Any] = module.Model.model_validate
    return judge


def read_packed(folder: Path) -> dict[tuple[int, int], Feature]:
    """All features of a packed folder by layer and number, read as browsers do: by range, with a byte too many."""
    features = {}
    for layer, entry in json.loads(gzip.decompress((folder / "index.json.gz").read_bytes())).items():
        offsets = entry["offsets"]
        for unit, (start, end) in enumerate(pairwise(offsets)):
            with (folder / entry["filename"]).open("rb") as file:
                file.seek(start)
                content = file.read(end - start + 1)
            (size,) = struct.unpack("<I", content[:4])
            assert 4 + size == end - start
            features[int(layer), unit] = json.loads(gzip.decompress(content[4 : 4 + size]))
    return features


def joined_by_frontend(tokens: list[str]) -> str:
    """The text that the frontend shows for tokens: bytes written as hexadecimal, up to five tokens, make characters."""
    shown, place = "", 0
    while place < len(tokens):
        if _has_byte(tokens[place]):
            for end in range(place + 2, min(place + 5, len(tokens)) + 1):
                try:
                    text = b"".join(map(_bytes, tokens[place:end])).decode("utf-8")
                except UnicodeDecodeError:
                    continue
                shown, place = shown + text, end
                break
            else:
                shown, place = shown + tokens[place], place + 1
        else:
            shown, place = shown + tokens[place], place + 1
    return shown


def _has_byte(token: str) -> bool:
    return any(_is_byte(token[at : at + 4]) for at in range(len(token)))


def _is_byte(text: str) -> bool:
    return len(text) == 4 and text.startswith("\\x") and all(digit in "0123456789abcdef" for digit in text[2:])


def _bytes(token: str) -> bytes:
    found = b""
    while token:
        if _is_byte(token[:4]):
            found, token = found + bytes([int(token[2:4], 16)]), token[4:]
        else:
            found, token = found + token[0].encode(), token[1:]
    return found
