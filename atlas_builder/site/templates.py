"""Jinja as pages of records need it: the same text as Jinja's own, put together in fewer steps."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from jinja2 import Environment, nodes
from jinja2.compiler import CodeGenerator, Frame
from markupsafe import Markup, escape


class _Joined(CodeGenerator):
    """Compiles templates so that a block is one string.

    As Jinja compiles them, every piece between two tags goes by itself through the
    generators of the block, of the template and of each that it extends, and what is
    escaped is wrapped to say so, although it is only written. Here pieces are put into a
    list, as Jinja does in macros, and what is escaped stays a plain string.
    """

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        if frame.buffer is not None:
            super().blockvisit(nodes, frame)
            return
        self.buffer(frame)
        super().blockvisit(nodes, frame)
        self.writeline(f"yield concat({frame.buffer})")

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("written = environment.written")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if frame.eval_ctx.volatile or not frame.eval_ctx.autoescape or finalize.src is not None:
            super()._output_child_pre(node, frame, finalize)
        else:
            self.write("written(")


class RecordTemplates(Environment):
    """Jinja whose `record.stats` looks among the keys of a dict first; pages ask for little else."""

    code_generator_class = _Joined

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

    @staticmethod
    def written(value: Any) -> str:
        """A value as it is written into a page: escaped, unless it is markup."""
        if type(value) is str:
            return _escaped(value)
        if type(value) is Markup:
            return value
        if type(value) is int:
            return str(value)
        return escape(value)


# Many of a page's strings stand on every page.
@lru_cache(maxsize=1 << 12)
def _escaped(text: str) -> str:
    return str(escape(text))
