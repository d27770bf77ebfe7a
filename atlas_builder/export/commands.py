"""The commands `export` and `label`, as they are typed; without anything that takes long to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_FOLDER = click.argument("folder")


@click.group(short_help="Write an atlas in the format of another tool.")
def export() -> None:
    """Write an atlas in the format of another tool, a subcommand a format.

    Each says at its end how to look at the result, and what the format has no place for.

    \b
    Examples:
      atlas-builder export circuit-tracer output/demo
      atlas-builder export circuit-tracer --help
    """


@export.command("circuit-tracer", short_help="Features for the frontend of attribution graphs.")
@_FOLDER
@click.option(
    "--output", type=click.Path(path_type=Path), help="The folder.  [default: FOLDER.circuit-tracer, beside FOLDER]"
)
@click.option("--files", is_flag=True, help="A file a feature, {number}.json, rather than one packed file a layer.")
@click.option("--scan", metavar="NAME", help="Name of the features, in transcoder_id.  [default: the atlas's id]")
@click.option("--examples", type=click.IntRange(1), help="Most examples of a section.  [default: all]")
def export_features(folder: str, **asked: Any) -> None:
    """Write a feature a unit of the atlas in FOLDER, or at an address, as circuit-tracer's frontend reads them.

    Each behaviour is a section, named by its label and coverage; then each band of the activation range, behaviours
    of negative activations, and unclustered examples. Packed by default: index.json.gz and layer_L.bin.

    To look at the result, serve it beside the graphs, whose metadata.scan is "/demo":
    circuit_tracer.frontend.local_server.serve("graphs", features_dir="output/demo.circuit-tracer").

    \b
    Examples:
      atlas-builder export circuit-tracer output/demo
      atlas-builder export circuit-tracer output/demo --files --output graphs/demo
    """
    from atlas_builder.export.command import run_circuit_tracer

    run_circuit_tracer(folder, say=click.echo, **asked)


@click.command(short_help="Label the nodes of an attribution graph.")
@click.argument("graph", type=click.Path(path_type=Path))
@_FOLDER
@click.option("--output", type=click.Path(path_type=Path), help="The file.  [default: GRAPH.labelled.json]")
@click.option("--url", metavar="BASE", help="Address of the atlas, for links.  [default: atlas.url]")
@click.option(
    "--behaviours", default=2, show_default=True, type=click.IntRange(1, 20), help="Most behaviours that a label names."
)
@click.option("--replace", is_flag=True, help="Replace labels that nodes have.")
@click.option(
    "--scan", multiple=True, metavar="NAME",
    help="Accept a graph whose metadata.scan is NAME, too; may be repeated.",
)  # fmt: skip
def label(graph: Path, folder: str, **asked: Any) -> None:
    """Label the nodes of the attribution graph GRAPH with what their units do, from the atlas in FOLDER.

    Nodes get the labels of their unit's main behaviours, most covering first, and a link to its page. Nodes of
    features that the atlas does not have stay as they are. A graph of another model is refused.

    \b
    Examples:
      atlas-builder label graph.json output/demo --url https://example.org/atlas
      atlas-builder label graph.json output/demo --scan mntss/gemma-scope-transcoders --output labelled/graph.json
    """
    from atlas_builder.export.command import run_label

    run_label(graph, folder, say=click.echo, **asked)
