"""What the commands `export` and `label` do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.export.circuit_tracer import Feature, cantor_pair, feature_of
from atlas_builder.export.graph_labels import (
    check_model,
    label_nodes,
    link_base,
    read_graph,
    write_graph,
)
from atlas_builder.export.identity import AtlasIdentity
from atlas_builder.export.losses import LOSSES
from atlas_builder.export.output import export_folder
from atlas_builder.export.packed import INDEX, layer_file, write_feature_index, write_features
from atlas_builder.progress import Advance, Progress
from atlas_builder.reader.atlas import Atlas, Layer
from atlas_builder.reader.atlas import open as open_atlas
from atlas_builder.records.kinds import kind_of

_FORMAT = "circuit-tracer"
_OWN = re.compile(rf"{re.escape(INDEX)}|layer_[0-9]+\.bin|[0-9]+\.json")
_SCAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,119}")


class ExportedFeatures(NamedTuple):
    """What was written."""

    folder: Path
    scan: str
    """The name of the features."""
    features: int
    bytes: int
    """Of all files of features, and their index."""


def export_circuit_tracer(
    place: str | os.PathLike[str],
    output: Path | None = None,
    *,
    files: bool = False,
    scan: str | None = None,
    examples: int | None = None,
    progress: Progress | None = None,
) -> ExportedFeatures:
    """Write a feature a unit as circuit-tracer's frontend reads them; memory is bounded by one unit.

    The same atlas gives the same bytes.

    Args:
        place: The folder or address of a built atlas.
        output: The folder, by default `<folder>.circuit-tracer` beside that of the atlas.
        files: Whether each feature is a file of its own, `{number}.json`; packed by layer by default.
        scan: The name of the features, by default the atlas's id.
        examples: Most examples of a section; all by default.
        progress: Where to report; quiet by default.

    Raises:
        ConfigurationError: Where the atlas cannot be read or the folder holds something else.

    Example:
        >>> from atlas_builder.export.command import export_circuit_tracer
        >>> export_circuit_tracer("output/my-model").features
        48
    """
    atlas = open_atlas(place)
    scan = atlas.id if scan is None else scan
    if not _SCAN.fullmatch(scan):
        raise ConfigurationError(f"--scan {brief(scan)}: give a name of letters, digits, . _ - / and @, such as gpt2.")
    facts = _facts(atlas, scan, files)
    folder = _output(place, output)
    work = progress or Progress(quiet=True)
    with (
        export_folder(folder, _FORMAT, _OWN, facts) as draft,
        work.task("export", total=len(atlas), unit="units") as advance,
    ):
        layers = {layer.number: _features(layer, scan, examples, advance) for layer in atlas.layers}
        if files:
            for layer, features in layers.items():
                for feature in features:
                    (draft / f"{cantor_pair(layer, feature['index'])}.json").write_bytes(orjson.dumps(feature))
        else:
            offsets = {layer: write_features(draft / layer_file(layer), units) for layer, units in layers.items()}
            write_feature_index(draft, offsets)
        size = sum(file.stat().st_size for file in draft.iterdir())
    return ExportedFeatures(folder, scan, len(atlas), size)


def _facts(atlas: Atlas, scan: str, files: bool) -> dict[str, Any]:
    """What stands beside the features."""
    identity = AtlasIdentity.of(atlas)
    return {
        "form": "files" if files else "packed",
        "atlas": atlas.facts["atlas"],
        "kind": identity.kind,
        "model": identity.model,
        "scan": scan,
        "lost": LOSSES[_FORMAT],
    }


def _features(layer: Layer, scan: str, examples: int | None, advance: Advance) -> Iterator[Feature]:
    for unit in layer:
        yield feature_of(unit, scan, examples)
        advance(1)


def _output(place: str | os.PathLike[str], output: Path | None) -> Path:
    text = os.fspath(place)
    if "://" in text:
        if output is None:
            raise ConfigurationError("--output: name a folder for what is made of an atlas at an address.")
        return output
    site = Path(text).expanduser().resolve()
    site = site.parent if site.is_file() else site
    folder = site.with_name(f"{site.name}.{_FORMAT}") if output is None else output
    if folder.resolve().is_relative_to(site):
        raise ConfigurationError(f"--output: {brief(folder, 150)} is inside the atlas: name a folder outside.")
    return folder


def run_circuit_tracer(
    place: str,
    output: Path | None,
    *,
    files: bool,
    scan: str | None,
    examples: int | None,
    say: Callable[[str], object],
) -> None:
    """The command `export circuit-tracer`: export, then say what was made, how to look at it, and what it lacks."""
    made = export_circuit_tracer(place, output, files=files, scan=scan, examples=examples, progress=Progress())
    name = made.folder.name
    say(f"{made.features:,} features, {made.bytes / 1e6:,.1f} MB: {made.folder}")
    if files:
        say(f'to look at them, put the folder beside graphs whose metadata.scan is "./data/{name}"')
    else:
        say(f'to look at them, serve(graphs, features_dir=FOLDER) with "/{made.scan}" as metadata.scan of the graphs,')
        say('or upload the folder to a hub as features/, with "owner/repository" as their metadata.scan')
    for sentence in LOSSES[_FORMAT]:
        say(f"lost: {sentence}")


def run_label(
    file: Path,
    place: str,
    output: Path | None,
    *,
    url: str | None,
    behaviours: int,
    replace: bool,
    scan: Sequence[str],
    say: Callable[[str], object],
) -> None:
    """The command `label`: label a graph's nodes from an atlas, then say how many."""
    graph = read_graph(file)
    atlas = open_atlas(place)
    check_model(graph, atlas, scan)
    base = link_base(url, atlas)
    done = label_nodes(graph, atlas, base=base, behaviours=behaviours, replace=replace)
    target = output or file.with_name(f"{file.stem}.labelled.json")
    write_graph(graph, target)
    noun = kind_of(AtlasIdentity.of(atlas).kind).noun
    said = f"{done.labelled:,} of {sum(done):,} nodes of features labelled as {noun}s of {atlas.id}"
    more = [
        (done.kept, "left with the label that they had (--replace replaces it)"),
        (done.bare, "left without one, of units without behaviours"),
        (done.unknown, "left as they were, of features that the atlas does not have"),
    ]
    say("; ".join([said, *(f"{count:,} {what}" for count, what in more if count)]) + f": {target}")
    if base is None:
        say("no links: give the address of the atlas with --url")
