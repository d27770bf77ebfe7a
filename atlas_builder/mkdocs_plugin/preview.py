"""The pages of a built atlas, rendered again on request.

This is for work on a theme: a change shows with the next request, without rendering an
atlas of tens of thousands of units again.
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import orjson
from markupsafe import escape

from atlas_builder.config import Configuration
from atlas_builder.errors import AtlasError
from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.explanations import PUBLISHED
from atlas_builder.records.stages import Stages
from atlas_builder.shipped import shipped_folder
from atlas_builder.site.context import Site
from atlas_builder.site.map import DrawnMap, atlas_map
from atlas_builder.site.prose.render import render_prose
from atlas_builder.site.publish import overviews
from atlas_builder.site.render import Worker, encoded
from atlas_builder.site.summary import Summary, summary_of
from atlas_builder.workspace import work_folder

_TRIES = 3  # MkDocs may empty its folder, when it builds, between our writing a file and its reading it
_UNIT = re.compile(r"L(\d+)/N(\d+)\.(html|json)")
_LAYER = re.compile(r"L(\d+)/([^/]+\.html)")


_POLICY = re.compile(r"<meta http-equiv=Content-Security-Policy[^>]*>\s*")


def without_policy(page: str) -> str:
    """A page without its Content-Security-Policy, which forbids MkDocs's inline script that reloads it."""
    return _POLICY.sub("", page)


def open_site(config: Configuration, output: Path) -> Site:
    """What the pages of the atlas built at `output` were made from."""
    stages = Stages.at(work_folder(output))
    facts = read_facts(output)
    # Less may be shown than configured, so that the atlas fits its host.
    shown = config.site.model_copy(update=facts.get("shown", {}))
    said = output / PUBLISHED if facts["configuration"]["site"].get("explanations") else None
    return Site(stages, config.model_copy(update={"site": shown}), facts, facts["date"], said)


class Preview:
    """Makes the files of the atlas at `built`, one at a time, with its theme as it is now."""

    def __init__(self, configuration: Configuration, built: Path, progress: Progress) -> None:
        self.configuration, self.built = configuration, built
        self.site = open_site(configuration, built)
        self._progress = progress
        self._worker = Worker()
        # A worker's open stages belong to its thread; a server answers each request in another.
        self._thread = ThreadPoolExecutor(1)

    def follow_prose(self) -> None:
        """Reopen the site if there are other pages of prose: the head of every page lists them."""
        site = replace(self.site)
        if site.prose != self.site.prose:
            self.site, self._worker = site, Worker()

    def render_prose(self, folder: Path) -> None:
        """Render all pages of prose into a folder; they are few."""
        render_prose(self.site.docs, self.site.theme, folder, self.site.extra)

    def place(self, address: str, folder: Path) -> bool:
        """Write the file at an address of the atlas into a folder; False where there is none.

        For a page that cannot be rendered, a page with the error is written.
        """
        address = posixpath.normpath("/" + address).lstrip("/")
        if (self.built / address).is_dir():
            address = posixpath.join(address, "index.html")
        try:
            content = self._thread.submit(self._content, address).result()
        except AtlasError as error:
            self._progress.say(str(error))
            content = f"<!doctype html><title>Error</title><p>{escape(str(error))}</p>".encode()
        if content is None:
            return False
        if address.endswith(".html"):
            content = encoded(without_policy(content.decode()))
        target = folder / address
        draft = target.with_name(f".{threading.get_ident()}.draft")  # no other request reads half a file
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(target)
        return True

    def _content(self, address: str) -> bytes | None:
        if match := _UNIT.fullmatch(address):
            return self._unit(int(match[1]), int(match[2]), match[3])
        if render := overviews(self.site, lambda: self._summaries, self._drawn).get(address):
            return encoded(render())
        if (match := _LAYER.fullmatch(address)) and (self.built / address).is_file():
            layer = int(match[1])
            return encoded(self.site.pages.layer(layer, self._summaries[layer], list(self._summaries))[match[2]])
        places = [self.built / address]
        if address.startswith("assets/"):
            places[:0] = [self.site.theme / address, shipped_folder("themes") / "atlas" / address]
        return next((place.read_bytes() for place in places if place.is_file()), None)

    def _unit(self, layer: int, unit: int, kind: str) -> bytes | None:
        place = self._places.get((layer, unit))
        if place is None:
            return None
        self._worker.open(self.site)
        rendered = self._worker.unit(place)
        return rendered.content if kind == "json" else rendered.page

    @cached_property
    def _places(self) -> dict[tuple[int, int], int]:
        return {unit: place for place, unit in enumerate(self.site.units)}

    def _drawn(self) -> DrawnMap:
        return atlas_map(self.site.stages).drawn

    @cached_property
    def _summaries(self) -> dict[int, list[Summary]]:
        """Summaries of units by layer, from the published records."""
        summaries: dict[int, list[Summary]] = {layer.layer: [] for layer in self.site.stages.collected.layers}
        for layer, unit in self.site.units:
            record = (self.built / UnitAddress(layer, unit).page).with_suffix(".json")
            summaries[layer].append(summary_of(orjson.loads(record.read_bytes()), self.site.explanations))
        return summaries


def application(server: WSGIApplication, place: Callable[[str], bool], root: str) -> WSGIApplication:
    """A wrapper of a server: a file that the server does not find is written for it, and the request repeated.

    So pages get what the server adds to each: their type, and the script that reloads them.
    `root` is the address of the atlas, `/` or `/atlas/`.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "ignore")
        for _ in range(_TRIES):
            responses: list[tuple[str, list[tuple[str, str]]]] = []

            def keep(
                status: str, headers: list[tuple[str, str]], *_: Any, responses: Any = responses
            ) -> Callable[[bytes], None]:
                responses.append((status, headers))
                return lambda _: None

            body = server(environ, keep)
            missing = responses[0][0].startswith("404") and f"{path}/".startswith(root)
            if not (missing and place(path[len(root) :])):
                break
        start_response(*responses[0])
        return body

    return answer
