"""Configurations as files: YAML, `--set KEY=VALUE`, and error messages that say what to change."""

from __future__ import annotations

import copy
import difflib
import reprlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atlas_builder.config import Author, Configuration, paths_in
from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.settings.plain_yaml import MOST_CHARACTERS, NotPlainError, read_yaml

AS_WRITTEN = frozenset(
    {"atlas.version", "atlas.date", "atlas.id", "atlas.title", "atlas.doi", "model.name", "model.revision"}
    | {f"corpus.{key}" for key in ("path", "name", "revision", "split", "field")}
    | {f"units.{key}" for key in ("path", "release", "id")}
)
"""Keys at which what looks like a number, a date, or yes or no is text as it was written, to the last zero."""
_MOST_PROBLEMS = 20
_MOST_PARENTS = 8
_LONGEST_KEY = 60
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Configuration:
    """Read a configuration from a YAML file.

    Args:
        path: The file; relative paths in it (`model.name` as a folder, `corpus.path`,
            `site.prose`) are resolved against its folder.
        overrides: `KEY=VALUE` pairs that change keys of it, as `--set` does.

    Returns:
        The validated configuration.

    Raises:
        ConfigurationError: With every problem at once, one per line.

    Example:
        >>> from atlas_builder import load_config
        >>> from pathlib import Path
        >>> load_config(Path("my-model.yml"), ("corpus.max_tokens=1000",)).corpus.max_tokens
        1000
    """
    source = brief(path, 80)
    data = _parse(_text(path, source), source, AS_WRITTEN)
    if not isinstance(data, dict):
        raise ConfigurationError(f"{source} must contain keys such as model: and corpus:, not {_kind(data)}.")
    for override in overrides:
        _override(data, override)
    return validate(data, source, base=path.parent)


def with_overrides(data: dict[str, Any], overrides: tuple[str, ...], source: str) -> Configuration:
    """Validate plain data after `KEY=VALUE` overrides; raises `ConfigurationError` like `load_config`."""
    changed = copy.deepcopy(data)
    for override in overrides:
        _override(changed, override)
    return validate(changed, source)


def validate(data: dict[str, Any], source: str = "configuration", base: Path | None = None) -> Configuration:
    """Validate plain data as a configuration; relative paths are resolved against `base`."""
    data = {key: value for key, value in data.items() if value is not None}  # an empty section has its defaults
    try:
        config = Configuration.model_validate(_lists_to_tuples(data))
    except ValidationError as error:
        # A field of a union type fails once per type, and is reported once.
        problems = list({item["loc"][:2]: _problem(item) for item in error.errors(include_url=False)}.values())
        lines = [f"{source}: {problem}" for problem in problems[:_MOST_PROBLEMS]]
        if more := len(problems) - len(lines):
            lines.append(f"{source}: and {more:,} more problems.")
        raise ConfigurationError("\n".join(lines)) from None
    return config if base is None else _anchored(config, base)


def _anchored(config: Configuration, base: Path) -> Configuration:
    """The configuration with its relative paths resolved against a folder."""

    def anchor(value: str) -> str:
        try:
            place = base / (Path(value).expanduser() if value.startswith("~") else value)
            exists = place.exists()
        except (OSError, RuntimeError):  # too long for a path; a user without a home
            return value
        return str(place.resolve()) if exists else value

    sections = {}
    for name, section in config:
        values = ((field, mark, getattr(section, field)) for field, mark in paths_in(section))
        anchored = {field: anchor(value) for field, mark, value in values if value and mark.means_path(value)}
        sections[name] = section.model_copy(update=anchored)
    return config.model_copy(update=sections)


def _text(path: Path, source: str) -> str:
    """The text of a file; what is no file is not opened, since a pipe would be waited for."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{source} cannot be read (it is not a file): give the path of a YAML file.")
        with path.open("rb") as file:
            # UTF-8 has at most four bytes a character.
            raw = file.read(4 * MOST_CHARACTERS + 1)
        return raw.decode("utf-8-sig") if len(raw) <= 4 * MOST_CHARACTERS else "x" * (MOST_CHARACTERS + 1)
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{source} cannot be read ({reason}): give the path of a YAML file.") from None


def _parse(text: str, source: str, as_written: frozenset[str]) -> Any:
    try:
        return read_yaml(text, as_written)
    except NotPlainError as error:
        where = f", line {error.line}" if error.line else ""
        is_what = " is not valid YAML" if error.broken else ""
        raise ConfigurationError(f"{source}{where}{is_what}: {error}.") from None


def _override(data: dict[str, Any], override: str) -> None:
    said = f"--set {brief(override)}"
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigurationError(f"{said} must be KEY=VALUE, like --set corpus.max_tokens=100000.")
    *parents, last = (part.strip() for part in key.split("."))
    if len(parents) > _MOST_PARENTS:
        raise ConfigurationError(f"{said}: no key has so many parts, write one like corpus.max_tokens.")
    section = data
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise ConfigurationError(f"{said}: {brief(parent)} is a value, not a section.")
    section[last] = _parse(value, said, frozenset({""}) if key.strip() in AS_WRITTEN else frozenset())


def _lists_to_tuples(data: dict[str, Any]) -> dict[str, Any]:
    """YAML has no tuples; the one field that is a pair gets one."""
    examples = data.get("examples")
    if isinstance(examples, dict) and isinstance(examples.get("window"), list):
        data = {**data, "examples": {**examples, "window": tuple(examples["window"])}}
    return data


def _problem(item: Any) -> str:
    path = [part for part in item["loc"] if not (isinstance(part, str) and part.startswith(("list[", "literal[")))]
    key = brief(".".join(str(part) for part in path))
    if item["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1])[:_LONGEST_KEY], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"the keys here are {brief(', '.join(known), 120)}."
        return f"unknown key {key}: {hint}"
    if item["type"] == "missing":
        return f"{key} is required."
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key} must be keys with values, such as {_known_keys(path)[0]}: … (got {_got(item['input'])})."
    message = brief(str(item["msg"]).removeprefix("Value error, "), 140)
    message = message[:1].lower() + message[1:]
    return f"{key}: {message} (got {_got(item['input'])})." if key else f"{message}."


def _got(value: object) -> str:
    """A value as a sentence quotes it; of lists and sections only the first parts are looked at."""
    try:
        return brief(_SHORT.repr(value))
    except ValueError:  # Python refuses to write an integer of thousands of digits
        return "a number of thousands of digits"


def _known_keys(path: list[Any]) -> list[str]:
    section: Any = Configuration
    for part in path:
        section = Author if isinstance(part, int) else section.model_fields[part].annotation
        if not isinstance(section, type):
            section = Author
    return list(section.model_fields)


def _kind(data: object) -> str:
    return "nothing" if data is None else f"a {type(data).__name__}"
