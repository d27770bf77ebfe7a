"""The atlases of all shipped models, of their neurons, SAEs and directions, and the page that compares them."""

from __future__ import annotations

import math
import os
import shutil
from concurrent.futures import Executor
from pathlib import Path

import orjson
from markupsafe import Markup

from atlas_builder.comparison import compare
from atlas_builder.config_file import load_config
from atlas_builder.explain.results import beside
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.shipped import CRATE, MODEL, RELU, shipped_folder
from atlas_builder.site.replacement import SAVED, replace_site, restore_site
from atlas_builder.workspace import check_output, is_atlas, work_folder, workers

ATLASES = ("demo", "relu-demo", "crate-demo", "sae-demo", "basis-demo", "random-demo")
"""The names of their configurations, and of their folders in the site."""
_ABOVE = "site.above=../index.html"
_COUNTERPARTS = {"demo": "basis-demo", "basis-demo": "demo", "random-demo": "demo"}
"""Atlases of neurons and of directions of one model, which link to each other."""


def build_gallery(
    output: Path,
    *,
    overrides: tuple[str, ...] = (),
    fresh: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Path:
    """Build all the atlases and compare them; returns the folder of the site, whose first page is the comparison.

    Atlases are built in the hidden folder beside `output`, with their intermediate results,
    and hard-linked into the site from there, so that an interrupted build resumes. Raises
    `ConfigurationError` if `output` holds anything but such a site.
    """
    progress = progress or Progress(quiet=True)
    output = output.resolve()
    check_output(output, fresh, _is_gallery)
    work = work_folder(output)
    restore_site(output, work)
    with workers(executor) as pool:
        for name in ATLASES:
            progress.say(f"{name}:")
            linked = [f"site.counterpart=../{_COUNTERPARTS[name]}"] if name in _COUNTERPARTS else []
            settings = load_config(shipped_folder("site_config") / f"{name}.yml", (_ABOVE, *linked, *overrides))
            build(settings, work / name, fresh=fresh, progress=progress, executor=pool)
    site = work / "site"
    shutil.rmtree(site, ignore_errors=True)
    for name in ATLASES:
        shutil.copytree(work / name, site / name, copy_function=_link)
        if (explained := beside(output / name)).exists():
            shutil.copyfile(explained, beside(site / name))
    compare([site / name for name in ATLASES], site, note=_note())
    for path in replace_site(site, output, work, ATLASES):
        progress.say(f"{path} of yours gave way to a file of the site: it is now in {work / SAVED}")
    return output


def _note() -> Markup:
    """A note on the models' training data and losses, from the records of their training."""
    records = [orjson.loads((model / "training.json").read_bytes()) for model in (CRATE, RELU, MODEL)]
    seen = [math.prod(record["recipe"][name] for name in ("steps", "batch", "context")) / 1e6 for record in records]
    losses = [f"{record['loss']['held_out']:.2f}" for record in records]
    sizes = [record["parameters"] / 1e6 for record in records]
    return Markup(
        "CRATE and the ReLU twin have the same depth and width, {:.2f} and {:.2f} million parameters, and were trained "
        "on the same {:.1f} million tokens in the same order; the GPT-2 has {:.2f} million parameters and was trained "
        "on {:.1f} million tokens. On held-out documents their losses are {}, {} and {} nats a token. The SAEs are "
        "trained on the inputs of the GPT-2’s MLPs. Results are compared with those of the papers in "
        '<a href="https://github.com/atlas-builder/atlas-builder/blob/main/site_config/guide/units.md">Other units</a>.'
    ).format(*sizes[:2], seen[0], sizes[2], seen[2], *losses)


def _is_gallery(folder: Path) -> bool:
    """Whether a folder holds such atlases and their comparison, and no other folders but hidden ones.

    Earlier versions built fewer atlases.
    """
    folders = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")} - {"assets"}
    own = folders <= set(ATLASES) and len(folders) > 1
    return own and (folder / "index.html").is_file() and all(is_atlas(folder / name) for name in folders)


def _link(source: str, target: str) -> None:
    """A hard link, or where the disk does not allow one, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
