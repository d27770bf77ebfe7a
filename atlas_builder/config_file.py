"""Configurations as files: YAML, `--set KEY=VALUE`, and error messages that say what to change."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from atlas_builder.config import Author, Configuration, paths_in
from atlas_builder.errors import ConfigurationError


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{path} cannot be read ({reason}): give the path of a YAML file.") from None
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} must contain keys such as model: and corpus:, not {_kind(data)}.")
    for override in overrides:
        _override(data, override)
    return validate(data, str(path), base=path.parent)


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
        problems = list({item["loc"][:2]: _problem(item) for item in error.errors()}.values())
        raise ConfigurationError("\n".join(f"{source}: {problem}" for problem in problems)) from None
    return config if base is None else _anchored(config, base)


def _anchored(config: Configuration, base: Path) -> Configuration:
    """The configuration with its relative paths resolved against a folder."""

    def anchor(value: str) -> str:
        try:
            exists = (base / value).exists()
        except OSError:  # too long for a path
            exists = False
        return str((base / value).resolve()) if exists else value

    sections = {}
    for name, section in config:
        values = ((field, mark, getattr(section, field)) for field, mark in paths_in(section))
        anchored = {field: anchor(value) for field, mark, value in values if value and mark.means_path(value)}
        sections[name] = section.model_copy(update=anchored)
    return config.model_copy(update=sections)


class _Loader(yaml.SafeLoader):
    """YAML in which a duplicate key is an error; the standard loader silently keeps the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen if isinstance(key, yaml.ScalarNode) else False:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
        seen.add(str(key.value))
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigurationError(f"{source}{where} is not valid YAML: {problem}.") from None
    except (ValueError, RecursionError) as error:  # an impossible date, a number too long, a thousand brackets
        raise ConfigurationError(f"{source} is not valid YAML: {error}.") from None


def _override(data: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key.strip():
        raise ConfigurationError(f"--set {override!r} must be KEY=VALUE, like --set corpus.max_tokens=100000.")
    *parents, last = key.strip().split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise ConfigurationError(f"--set {override!r}: {parent} is a value, not a section.")
    section[last] = _parse(value, f"--set {override!r:.80}")


def _lists_to_tuples(data: dict[str, Any]) -> dict[str, Any]:
    """YAML has no tuples; the one field that is a pair gets one."""
    examples = data.get("examples")
    if isinstance(examples, dict) and isinstance(examples.get("window"), list):
        data = {**data, "examples": {**examples, "window": tuple(examples["window"])}}
    return data


def _problem(item: Any) -> str:
    path = [part for part in item["loc"] if not (isinstance(part, str) and part.startswith(("list[", "literal[")))]
    key = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}."
        return f"unknown key {key}: {hint}"
    if item["type"] == "missing":
        return f"{key} is required."
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{key}: {message} (got {item['input']!r:.60})." if key else f"{message}."


def _known_keys(path: list[Any]) -> list[str]:
    section: Any = Configuration
    for part in path:
        section = Author if isinstance(part, int) else section.model_fields[part].annotation
        if not isinstance(section, type):
            section = Author
    return list(section.model_fields)


def _kind(data: object) -> str:
    return "nothing" if data is None else f"a {type(data).__name__}"
