"""What all sections of a configuration share: strictness, and which settings are paths."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from atlas_builder.settings.text import check_writable


class IsPath(NamedTuple):
    """Marks a setting that may be a path: relative to the folder of its file, published without parent folders."""

    names: Collection[str] = ()
    """Values that are names, even where a file of that name exists."""
    by_slash: bool = False
    """Whether only a value with a slash is a path."""

    def means_path(self, value: str) -> bool:
        """Whether a value may be a path."""
        return value not in self.names and ("/" in value or not self.by_slash)


def paths_in(section: BaseModel) -> Iterator[tuple[str, IsPath]]:
    """The settings of a section that may be paths."""
    for name, field in type(section).model_fields.items():
        yield from ((name, mark) for mark in field.metadata if isinstance(mark, IsPath))


class Section(BaseModel):
    """A section of a configuration: strict, immutable, of settings that can be written."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        strict=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        str_max_length=4096,
    )

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: object, info: ValidationInfo) -> object:
        """Every setting is published, and may be a file's name or a part of one."""
        if isinstance(value, str):
            marks = cls.model_fields[str(info.field_name)].metadata
            check_writable(value, is_path=any(isinstance(mark, IsPath) for mark in marks))
        return value + 0.0 if isinstance(value, float) else value  # -0.0 is 0.0
