"""Jinja as pages of records need it: keys of dicts are looked up first, and a page leaves no cycles behind."""

from __future__ import annotations

from functools import lru_cache
from types import CodeType
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

_ESCAPED = "from atlas_builder.site.templates import escaped as escape\n"
"""What stands at the end of a compiled template."""


_text = lru_cache(maxsize=1 << 14)(escape)


def escaped(value: Any) -> str:
    """What a page shows of a value, as `markupsafe.escape` has it, which makes a new object of what is escaped already.

    The same short texts, such as shares, come on every page: each is escaped once.
    """
    if isinstance(value, Markup):
        return value
    if type(value) is str:
        return _text(value)
    return str(value) if type(value) is int else escape(value)


class RecordTemplates(Environment):
    """Jinja whose `record.stats` looks among the keys of a dict first; pages ask for little else."""

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

    def _compile(self, source: str, filename: str) -> CodeType:
        return super()._compile(f"{source}\n{_ESCAPED}", filename)

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
