"""Odd output neurons: hostile tokens, files, texts, edges and models; each is refused in a sentence or works whole.

What works is built, checked, verified, curated on both sides, and its curated lines are verified.

python -m tests.attacks.outputs [--small] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import transformers

from atlas_builder.config_file import validate
from atlas_builder.curate.run import curate
from atlas_builder.errors import AtlasError
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site.hosting.check import check
from atlas_builder.verify.curated import verify_curated
from atlas_builder.verify.run import verify
from tests.support.atlases import HOSTILE, write_words
from tests.support.families import save_family
from tests.support.tries import problems_of_each, say_failed

Documents = list[dict[str, Any]]


class Try(NamedTuple):
    kind: str
    units: Mapping[str, Any] = MappingProxyType({"tokens": [" def", " self", " the"]})
    settings: Mapping[str, dict[str, Any]] = MappingProxyType({})
    refused: str | None = None
    """The sentence, in part, with which it is refused; None where it works."""
    documents: Documents | None = None
    """The text, of words by default."""
    file: Callable[[Path], object] | None = None
    """Writes `units.file`."""
    model: str = "plain"


def _words(documents: int, length: int) -> Documents:
    chance = random.Random(1)
    words = ["the", "cat", "sat", "on", "def", "return", "self", "value", "list", "12", "(", ")", ":", "=", "."]
    return [{"text": " ".join(chance.choices(words, k=length))} for _ in range(documents)]


def _attributed(value: Callable[[int], Any]) -> Documents:
    return [
        document | ({} if number % 3 == 2 else {"genre": value(number)})
        for number, document in enumerate(_words(60, 30))
    ]


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda place: place.write_bytes(content)


_FIELD = {"corpus": {"attributes": ["genre"]}}
TRIES: dict[str, Try] = {
    "two tokens": Try("token", {"tokens": [" def self"]}, refused="is 2 tokens, ' def', ' self'"),
    "empty text": Try("token", {"tokens": [""]}, refused="units.tokens"),
    "blank": Try("token", {"tokens": [" "]}),
    "lower block": Try("token", {"tokens": ["\u2581def"]}, refused="tokens"),
    "markup": Try("token", {"tokens": [HOSTILE[0]]}, refused="tokens"),
    "control characters": Try("token", {"tokens": [HOSTILE[2]]}, refused="tokens"),
    "half a character": Try("token", {"tokens": ["\ud800"]}, refused="units.tokens"),
    "a thousand letters": Try("token", {"tokens": ["x" * 1000]}, refused="tokens"),
    "a long name": Try("token", {"tokens": ["x" * 1001]}, refused="units.tokens"),
    "twice": Try("token", {"tokens": [" def", " def"]}, refused="is the same token as"),
    "true": Try("token", {"tokens": [True]}, refused="units.tokens"),
    "a fraction": Try("token", {"tokens": [1.0]}, refused="units.tokens"),
    "negative": Try("token", {"tokens": [-1]}, refused="units.tokens"),
    "beyond": Try("token", {"tokens": [2048]}, refused="there is no token 2,048"),
    "far beyond": Try("token", {"tokens": [2**70]}, refused="units.tokens"),
    "special": Try("token", {"tokens": [0, 1, 2047]}),
    "none": Try("token", {"tokens": []}, refused="units.tokens"),
    "more than the vocabulary": Try("token", {"top": 2049}, refused="more than the vocabulary"),
    "more names than the vocabulary": Try("token", {"tokens": list(range(2049))}, refused="more than the vocabulary"),
    "the whole vocabulary": Try("token", {"top": 2048}),
    "tokens and top": Try("token", {"tokens": [1], "top": 3}, refused="requires one of"),
    "nothing chosen": Try("token", {}, refused="requires one of"),
    "layers": Try("token", {"top": 3, "layers": [0]}, refused="has no layers"),
    "one token": Try("token", {"tokens": [" def"]}),
    "empty file": Try("file", file=_bytes(b""), refused="names no token"),
    "blank lines": Try("file", file=_bytes(b"\n\r\n\n"), refused="names no token"),
    "NUL": Try("file", file=_bytes(b" def\0\n self\n"), refused="NUL"),
    "binary": Try("file", file=_bytes(bytes(range(256)) * 40), refused="units.file"),
    "Latin 1": Try("file", file=_bytes(b" def\n caf\xe9\n"), refused="UTF-8"),
    "CRLF": Try("file", file=_bytes(b" def\r\n self\r\n")),
    "byte order mark": Try("file", file=_bytes(b"\xef\xbb\xbf def\n self")),
    "UTF-16": Try("file", file=_bytes(" def\n self\n".encode("utf-16"))),
    "a line twice": Try("file", file=_bytes(b" def\n def\n"), refused="is the same token as"),
    "a line of a megabyte": Try("file", file=_bytes(b"x" * 1_000_000), refused="units.file"),
    "a line of fifty megabytes": Try("file", file=_bytes(b"x y " * 12_500_000), refused="units.file"),
    "a folder": Try("file", file=lambda place: place.mkdir(), refused="is not a file"),
    "a pipe": Try("file", file=lambda place: os.mkfifo(place), refused="is not a file"),
    "a missing file": Try("file", file=lambda place: None, refused="is not a file"),
    "a link to nothing": Try("file", file=lambda place: place.symlink_to("nowhere"), refused="is not a file"),
    "a device": Try("file", file=lambda place: place.symlink_to("/dev/zero"), refused="is not a file"),
    "JSON": Try("json", file=_bytes(b'[" def", 17]')),
    "JSON with a mark": Try("json", file=_bytes(b'\xef\xbb\xbf[" def", 17]')),
    "JSON of nothing": Try("json", file=_bytes(b"[]"), refused="units.file"),
    "JSON null": Try("json", file=_bytes(b"null"), refused="units.file"),
    "JSON object": Try("json", file=_bytes(b'{" def": 1}'), refused="units.file"),
    "JSON text": Try("json", file=_bytes(b'" def"'), refused="units.file"),
    "JSON true": Try("json", file=_bytes(b"[true]"), refused="units.file"),
    "JSON huge": Try("json", file=_bytes(b"[1" + b"0" * 400 + b"]"), refused="units.file"),
    "JSON deep": Try("json", file=_bytes(b"[" * 100_000 + b"]" * 100_000), refused="units.file"),
    "JSON half a character": Try("json", file=_bytes(b'["\\ud800"]'), refused="units.file"),
    "never comes": Try("text", {"tokens": [2000, " def"]}),
    "no token ever comes": Try("text", {"tokens": [2000, 2001]}),
    "comes once": Try("text", {"tokens": [" import", " def"]}, documents=[*_words(40, 30), {"text": "a import ."}]),
    "comes twice": Try("text", {"tokens": [" import"]}, documents=[*_words(40, 30), {"text": "a import . import"}]),
    "a document of one token": Try("text", documents=[{"text": "the"}]),
    "documents of one token": Try("text", documents=[{"text": "the"}] * 50),
    "documents of two tokens": Try("text", documents=[{"text": "the cat"}] * 50),
    "short documents": Try("text", documents=_words(50, 5)),
    "the same document": Try("text", documents=_words(1, 30) * 50),
    "hostile text": Try("text", {"top": 12}, documents=[{"text": text} for text in HOSTILE if "\ud800" not in text]),
    "quantiles out of order": Try("edges", settings={"examples": {"own_bands": [0.5, 0.1]}}, refused="must increase"),
    "quantiles alike": Try("edges", settings={"examples": {"own_bands": [0, 0.5, 0.5, 1]}}, refused="must increase"),
    "one quantile": Try("edges", settings={"examples": {"own_bands": [0]}}, refused="own_bands"),
    "NaN": Try("edges", settings={"examples": {"own_bands": [0, float("nan"), 1]}}, refused="own_bands"),
    "one band": Try("edges", settings={"examples": {"own_bands": [0, 1]}}),
    "a band amid": Try("edges", settings={"examples": {"own_bands": [0.2, 0.6]}}),
    "two bands amid": Try("edges", settings={"examples": {"own_bands": [0.2, 0.4, 0.6]}}),
    "narrow bands": Try("edges", settings={"examples": {"own_bands": [0, 1e-9, 2e-9, 1 - 1e-9, 1]}}),
    "forty bands": Try("edges", settings={"examples": {"own_bands": [n / 40 for n in range(41)]}}),
    "at the top alone": Try("edges", settings={"examples": {"own_bands": [0.999, 1]}}),
    "contexts of 8": Try("size", settings={"corpus": {"context": 8}}),
    "contexts of 2": Try("size", settings={"corpus": {"context": 2}}),
    "none shown": Try("size", settings={"examples": {"per_band": 0}}),
    "a hundred shown": Try("size", settings={"examples": {"per_band": 100}}),
    "one draw": Try("size", settings={"examples": {"association_draws": 1}}),
    "no associations": Try("size", settings={"describe": {"associations": False}}),
    "no window": Try("size", settings={"examples": {"window": [0, 0]}}),
    "one token of text": Try("size", settings={"corpus": {"max_tokens": 1}}),
    "top policy": Try("size", settings={"examples": {"policy": "top", "per_unit": 3}}),
    "steering": Try("size", settings={"describe": {"steering": True, "importance": "shown"}}),
    "report of interaction": Try("size", settings={"interaction": {"report": True}}, refused="interaction.report"),
    "attributes missing": Try("attributes", settings=_FIELD, documents=_attributed(lambda n: f"kind {n % 2}")),
    "attributes of markup": Try("attributes", settings=_FIELD, documents=_attributed(lambda n: HOSTILE[n % 3])),
    "ten thousand values": Try("attributes", settings=_FIELD, documents=[
        {"text": "the cat sat def list", "genre": str(number)} for number in range(10_000)]),
    "attributes of all kinds": Try("attributes", settings=_FIELD, documents=_attributed(
        lambda n: [None, True, 1.5, 10**18, "", "  ", "=cmd|' /C calc'!A0"][n % 7])),
    "an attribute of a list": Try("attributes", settings=_FIELD, documents=_attributed(lambda n: [1, 2]),
                                  refused="genre"),
    "an attribute no document has": Try("attributes", settings={"corpus": {"attributes": ["none"]}}, refused="none"),
    "zeros": Try("model", model="zeros"),
    "never active": Try("model", model="never"),
    "ties": Try("model", model="ties"),
    "tied head": Try("model", model="tied"),
    "biased head": Try("model", model="biased"),
    "padded vocabulary": Try("model", {"tokens": [" def", 2048, 2111]}, model="padded"),
    "padded vocabulary, top": Try("model", {"top": 2112}, model="padded"),
    "infinite head": Try("model", model="infinite", refused="NaN or infinity"),
    "CRATE": Try("model", model="crate", refused="is a CRATE model: set units.kind to crate"),
}  # fmt: skip
_SMALL = ("two tokens", "CRLF", "zeros")


def _save(name: str, folder: Path) -> None:
    """A model of a kind that is tried."""
    save_family("gptj" if name in ("biased", "never") else "gpt2", folder)
    if name in ("plain", "tied"):
        return
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        if name == "zeros":
            for parameter in model.parameters():
                parameter.zero_()
        if name == "padded":
            model.resize_token_embeddings(2112)
        if name == "ties":
            model.transformer.wte.weight.copy_(model.transformer.wte.weight.sign())
            model.transformer.ln_f.weight.zero_()
            model.transformer.ln_f.bias.copy_(model.transformer.ln_f.bias.sign())
        if name == "never":
            model.lm_head.bias[5:] -= 100
        if name == "infinite":
            model.transformer.wte.weight[7] = torch.inf
    model.save_pretrained(folder)


def problems_of(name: str, root: Path, pool: Executor) -> list[str]:
    """What is wrong with how a try ended; empty where it works, or is refused with its sentence."""
    tried, place = TRIES[name], root / "tries" / name.replace(" ", "_")
    place.mkdir(parents=True)
    text = root / "text" / "words.jsonl"
    if tried.documents is not None:
        text = place / "text.jsonl"
        text.write_text("\n".join(json.dumps(document) for document in tried.documents), encoding="utf-8")
    units = tried.units
    if tried.file is not None:
        file = place / ("tokens.json" if tried.kind == "json" else "tokens.txt")
        tried.file(file)
        units = {"file": str(file)}
    model = root / "models" / tried.model
    if tried.model != "crate" and not model.exists():
        _save(tried.model, model)
    settings: dict[str, dict[str, Any]] = {
        "atlas": {"id": "odd"},
        "model": {"name": "crate-demo" if tried.model == "crate" else str(model)},
        "corpus": {"source": "jsonl", "path": str(text), "context": 32},
        "units": {"kind": "logits", **units},
        "examples": {"per_unit": 6},
        "link": {"map": False},
    }
    for section, values in tried.settings.items():
        settings[section] = settings.get(section, {}) | values
    site = place / "site"
    try:
        build(validate(settings), site, executor=pool)
    except AtlasError as error:
        said = str(error)
        if tried.refused is not None and tried.refused in said and "\n" not in said and len(said) < 500:
            return []
        return [f"refused: {said}"]
    if tried.refused is not None:
        return ["built, though it should be refused"]
    found = check(site, Progress(quiet=True)).problems + verify(site, units=3).problems
    for side in ("own", "others") if validate(settings).names_associations else ("own",):
        for quantiles in ((0.0, 0.1), (0.3, 1.0)):
            lines = place / f"{side}{quantiles[1]}.jsonl"
            (layer,) = json.loads((site / "atlas.json").read_bytes())["layers"]
            chosen = [f"L{layer['layer']}/N{unit}" for unit in range(min(12, layer["units"]))]
            written = curate(site, lines, units=chosen, side=side, quantiles=quantiles, number=5)
            if written.lines:
                found += [f"curated {side} {quantiles}: {problem}" for problem in verify_curated(site, lines).problems]
    return found


def attack(small: bool, only: str | None) -> int:
    """Try all, print a table, and return how many failed."""
    names = [only] if only else list(_SMALL if small else TRIES)
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as pool:
        root = Path(scratch)
        write_words(root / "text")

        def say(name: str, problems: list[str], seconds: float) -> None:
            print(f"{name}: {seconds:.1f} s {problems[:2]}", file=sys.stderr, flush=True)

        failed = problems_of_each(names, lambda name: problems_of(name, root, pool), say)
    tried, bad = (Counter(TRIES[name].kind for name in some) for some in (names, failed))
    print("| kind | tried | held | failed |\n| --- | ---: | ---: | ---: |")
    for kind in tried:
        print(f"| {kind} | {tried[kind]} | {tried[kind] - bad[kind]} | {bad[kind]} |")
    return say_failed(len(names), failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="three tries")
    parser.add_argument("--only", default=None, choices=list(TRIES), help="one try")
    chosen = parser.parse_args()
    sys.exit(1 if attack(chosen.small, chosen.only) else 0)
