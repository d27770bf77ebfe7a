"""Jinja as pages of records need it: keys of dicts are looked up first, and a page leaves no cycles behind."""

from __future__ import annotations

import re
from types import CodeType
from typing import Any

from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket

_COMPACT = "{# compact #}"
_LINES = re.compile(r"\n(?=<|\{%)")


class RecordTemplates(Environment):
    """Jinja whose `record.stats` looks among the keys of a dict first; pages ask for little else.

    A template that begins with `{# compact #}` breaks its lines before tags for its own readers only: its pages do not,
    where `trim_blocks` is set. MkDocs's own Jinja does not set it, and keeps all lines.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What a template means by `obj.attribute`."""
        if type(obj) is dict:
            if attribute in obj:
                return obj[attribute]
        else:
            try:
                return getattr(obj, attribute)
            except AttributeError:
                pass
        return super().getattr(obj, attribute)

    def preprocess(self, source: str, name: str | None = None, filename: str | None = None) -> str:
        """The source without such line ends; as comments they still count in messages."""
        source = super().preprocess(source, name, filename)
        return _LINES.sub("{#\n#}", source) if self.trim_blocks and source.startswith(_COMPACT) else source

    def page(self, template: str, values: dict[str, Any]) -> str:
        """A page: what `render` of the template of this name returns.

        A context holds its macros, which hold the context; with the macros let go, it and
        the record in it end with the page, and no search for cycles goes through them.
        """
        compiled = self.get_template(template)
        context = compiled.new_context(values)
        try:
            return "".join(compiled.root_render_func(context))
        except Exception:
            self.handle_exception()
        finally:
            context.vars.clear()


class CompiledTemplates(BytecodeCache):
    """The templates that this process has compiled, which takes longer than a small site's pages do."""

    def __init__(self) -> None:
        self._codes: dict[tuple[object, ...], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give a template its code, if one of the same text was compiled for the same settings."""
        bucket.code = self._codes.get(_compiled_from(bucket))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the code of a template."""
        self._codes[_compiled_from(bucket)] = bucket.code


def _compiled_from(bucket: Bucket) -> tuple[object, ...]:
    jinja = bucket.environment
    return bucket.key, bucket.checksum, jinja.autoescape, jinja.trim_blocks, jinja.lstrip_blocks
