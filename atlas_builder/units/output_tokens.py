"""The tokens of a configuration's output neurons."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from atlas_builder.config import Configuration, UnitSettings
from atlas_builder.corpus.text_files import BrokenFileError, text_of
from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.models.language_model import LanguageModel
from atlas_builder.models.model_text import write_corpus

_LARGEST_FILE = 100_000_000
_LONGEST_NAME = 1000  # characters, as in a configuration: a tokenizer takes two hundred bytes for each
_SHOWN_PARTS = 6  # of a text that is no token


def output_tokens(model: LanguageModel, config: Configuration) -> list[int]:
    """The numbers of the tokens that have a page, in the order of the configuration.

    Raises `ConfigurationError` for a text that is not one token, for a token twice, and for more
    than the vocabulary has.
    """
    units, size = config.units, int(model.bridge.cfg.d_vocab)
    if units.top is not None:
        if units.top > size:
            raise ConfigurationError(f"units.top: {units.top:,} is more than the vocabulary's {size:,} tokens.")
        return _most_frequent(model, config, units.top)
    key, names = ("units.tokens", units.tokens) if units.file is None else ("units.file", _read(units.file))
    if not names:
        raise ConfigurationError(f"{key}: {brief(units.file or '', 150)} names no token: give at least one.")
    if len(names) > size:
        raise ConfigurationError(f"{key}: {len(names):,} tokens are more than the vocabulary's {size:,}.")
    chosen = _numbers(names, model, key)
    seen: dict[int, str | int] = {}
    for name, token in zip(names, chosen, strict=True):
        if token in seen:
            raise ConfigurationError(f"{key}: {_said(name)} is the same token as {_said(seen[token])}: remove one.")
        seen[token] = name
    return chosen


def _numbers(names: Sequence[str | int], model: LanguageModel, key: str) -> list[int]:
    texts = model.token_texts
    by_text: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        by_text.setdefault(text, []).append(token)
    return [_number(name, model, texts, by_text, key) for name in names]


def _number(name: str | int, model: LanguageModel, texts: list[str], by_text: dict[str, list[int]], key: str) -> int:
    """The token of a number, or of a text: as pages show tokens, else as the tokenizer splits it."""
    if isinstance(name, int):
        if name >= len(texts):
            raise ConfigurationError(f"{key}: there is no token {name:,}: the vocabulary has {len(texts):,}, from 0.")
        return name
    alike = by_text.get(name, [])
    if len(alike) == 1:
        return alike[0]
    parts = [int(token) for token in model.tokenizer(name, add_special_tokens=False, verbose=False)["input_ids"]]
    if len(parts) == 1 and parts[0] < len(texts) and (parts[0] in alike or not alike):
        return parts[0]
    if alike:
        raise ConfigurationError(f"{key}: {_said(name)} may be token {alike[0]} or {alike[1]}: give a number.")
    shown = [brief(repr(texts[token] if token < len(texts) else "?"), 40) for token in parts[:_SHOWN_PARTS]]
    split = ", ".join(shown) + ", …" * (len(parts) > _SHOWN_PARTS)
    what = f"is {len(parts)} tokens, {split}" if parts else "is no token"
    raise ConfigurationError(f"{key}: {_said(name)} {what}: give texts that are one token each.")


def _said(name: str | int) -> str:
    return f"token {name}" if isinstance(name, int) else brief(repr(name), 60)


def _read(file: str) -> list[str | int]:
    """The names in a file: a JSON list, or one on each line."""
    path = Path(file)
    if not path.is_file():
        raise ConfigurationError(f"units.file: {brief(file, 150)} is not a file: give a file of tokens.")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigurationError(f"units.file: {brief(file, 150)} is too large to be a list of tokens.")
        text = "".join(text_of(path, _LARGEST_FILE))
    except BrokenFileError as problem:
        raise ConfigurationError(f"units.file: {brief(file, 150)} {problem}: write tokens as UTF-8 text.") from None
    if path.suffix != ".json":
        names: list[str | int] = [line for line in text.split("\n") if line]
        if longest := next((line for line in names if len(str(line)) > _LONGEST_NAME), None):
            raise ConfigurationError(
                f"units.file: {_said(longest)} is longer than any token: write one token on each line."
            )
        return names
    try:
        return list(UnitSettings(kind="logits", tokens=orjson.loads(text)).tokens or ())
    except ValueError:
        raise ConfigurationError(
            f"units.file: {brief(file, 150)} is not a JSON list of texts and numbers: write one, or name it .txt."
        ) from None


def _most_frequent(model: LanguageModel, config: Configuration, count: int) -> list[int]:
    """The tokens that come most often in the text, ties by number; fewer where not so many come.

    A chat template's own are left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        read = write_corpus(model, config.corpus, Path(folder), model.bos)
        tokens = np.asarray(read.tokens)
        counts = np.bincount(
            tokens if read.special is None else tokens[~read.special], minlength=int(model.bridge.cfg.d_vocab)
        )
    order = np.argsort(-counts, kind="stable")[:count]
    return [int(token) for token in order if counts[token]]
