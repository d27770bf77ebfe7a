"""Commands; each is one call into the library, and imports what it uses when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlas_builder.explain.options import explain_options
from atlas_builder.export.commands import export, label
from atlas_builder.pipeline.division import Division, division_options
from atlas_builder.pipeline.stages import ALL_STAGES, Stage
from atlas_builder.progress import Progress
from atlas_builder.system.failures import failure
from atlas_builder.system.signals import stopped_by_signals

if TYPE_CHECKING:
    from atlas_builder.config import Configuration

# Read when torch loads. By default its threads wait for more work by spinning for
# milliseconds, on cores that the bookkeeping between two layers could use.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


class _Commands(click.Group):
    """Ends every command that fails with one clear sentence and an exit status."""

    def invoke(self, context: click.Context) -> Any:
        with stopped_by_signals() as stopping:
            try:
                return super().invoke(context)
            except (click.ClickException, click.exceptions.Exit, SystemExit):
                raise
            except BaseException as error:
                if context.params.get("debug"):
                    raise
                sentence, status = failure(stopping.cause(error))
                with suppress(OSError):  # the terminal may be gone
                    click.echo(sentence, err=True)
                sys.exit(status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="atlas-builder")
def main(debug: bool) -> None:
    """Build a browsable, citable atlas of a language model's neurons.

    \b
    atlas-builder demo                     the shipped model, offline, in minutes
    atlas-builder build my-model.yml       an atlas of your own
    atlas-builder serve output/demo        browse it
    """


_output = click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the site.  [default: output/<atlas.id>]"
)
_overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key of the configuration, such as corpus.context=64; may be repeated.",
)
_fresh = click.option(
    "--fresh",
    is_flag=True,
    help="Repeat every stage, and replace whatever the output folder holds; of an atlas, files of your own stay.",
)


@main.command(short_help="Build the atlas of the shipped model.")
@click.option("--all", "everything", is_flag=True, help="Also build its SAEs, a CRATE and a ReLU twin; compare all.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the site.  [default: output/demo, or output/demo-all]"
)
@_overrides
@_fresh
def demo(everything: bool, output: Path | None, overrides: tuple[str, ...], fresh: bool) -> None:
    """Build the atlas of the shipped model: 2,048 neurons on a million tokens of Python, in minutes.

    --all adds the atlases of a CRATE, of its twin with ReLU and of the latents of sparse
    autoencoders, and a page that compares the four.

    \b
    Examples:
      atlas-builder demo --output /tmp/demo
      atlas-builder demo --all
    """
    from atlas_builder.config_file import load_config
    from atlas_builder.shipped import shipped_folder

    if everything:
        from atlas_builder.demo.gallery import build_gallery

        folder = build_gallery(output or Path("output/demo-all"), overrides=overrides, fresh=fresh, progress=Progress())
        _say(f"open {folder / 'index.html'}")
        return
    _build(load_config(shipped_folder("site_config") / "demo.yml", overrides), output, fresh, "publish")


@main.command(short_help="Build an atlas from a configuration.")
@click.argument("configuration", type=click.Path(path_type=Path))
@_output
@_overrides
@_fresh
@click.option(
    "--until", type=click.Choice(ALL_STAGES), default="publish", show_default=True, help="Stop after this stage."
)
@division_options
def build(
    configuration: Path,
    output: Path | None,
    overrides: tuple[str, ...],
    fresh: bool,
    until: Stage,
    **division: Any,
) -> None:
    """Build an atlas from a YAML configuration.

    An interrupted build resumes; after a change of the configuration, only the stages that
    depend on it run again.

    \b
    Examples:
      atlas-builder build site_config/gpt2-small.yml
      atlas-builder build my-model.yml --set corpus.max_tokens=100000 --output /tmp/small
      atlas-builder build my-model.yml --shard 2/7
      atlas-builder build my-model.yml --scheduler tcp://10.0.0.1:8786
    """
    from atlas_builder.config_file import load_config

    asked = Division(**division)
    config = load_config(configuration, overrides)
    folder = output or _default_output(config)
    if said := asked.run_shard(config, folder, configuration, Progress()):
        _say(said)
        return
    asked.run_shards(config, folder, Progress())
    _build(config, folder, fresh, until, asked.scheduler)


@main.command(short_help="Compare built atlases of the same text.")
@click.argument("sites", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("output/compared"), show_default=True,
    help="Folder of the page, which links to the atlases where they are.",
)  # fmt: skip
@click.option("--note", default="", help="Text at the head of the page: what readers must know of these atlases.")
def compare(sites: tuple[Path, ...], output: Path, note: str) -> None:
    """Write a page that compares two or more atlases: scores by layer, and behaviours they share.

    \b
    Example:
      atlas-builder compare output/demo output/crate --output output/compared
    """
    from atlas_builder.comparison import compare as run

    _say(f"compared: {run(sites, output, note=note)}")


@main.command(short_help="Merge the shards of a pass over the corpus.")
@click.argument("configuration", type=click.Path(path_type=Path))
@click.argument("folders", type=click.Path(path_type=Path), nargs=-1)
@_output
@_overrides
def merge(configuration: Path, folders: tuple[Path, ...], output: Path | None, overrides: tuple[str, ...]) -> None:
    """Merge the shards that build --shard made; build then continues from there.

    The result does not depend on their number, to the byte. FOLDERS are the shards,
    wherever they were copied; by default, those beside the output folder.

    \b
    Examples:
      atlas-builder merge my-model.yml
      atlas-builder merge my-model.yml /scratch/1-of-2 /scratch/2-of-2
    """
    from atlas_builder.config_file import load_config

    config = load_config(configuration, overrides)
    from atlas_builder.pipeline import shards

    shards.merge_shards(config, output or _default_output(config), folders, progress=Progress())
    _say(f"the pass is complete; continue with: atlas-builder build {configuration}")


def _default_output(config: Configuration) -> Path:
    return Path("output") / config.atlas.id


def _build(config: Configuration, output: Path | None, fresh: bool, until: Stage, scheduler: str | None = None) -> None:
    from atlas_builder.pipeline.build import build as run

    progress = Progress()
    folder = output or _default_output(config)
    run(config, folder, fresh=fresh, until=until, progress=progress, scheduler=scheduler)
    if until == "publish":
        progress.say(f"open {folder / 'index.html'}")


@main.command(short_help="Serve a built site over http.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
def serve(folder: Path, port: int) -> None:
    """Serve a built site over http, to this machine only.

    \b
    Example:
      atlas-builder serve output/demo --port 8080
    """
    from atlas_builder.site.hosting.serve import serve as run

    run(folder, port, say=_say)


@main.command(short_help="Check all that a built site publishes, without the model.")
@click.argument("folder", type=click.Path(path_type=Path))
def check(folder: Path) -> None:
    """Check a built site without the model: the hash of every file, links, records, and size.

    Pages, tables and search index are compared with the records. Atlases in a folder below one
    page, like those of demo --all, are checked together.

    \b
    Example:
      atlas-builder check output/demo
    """
    from atlas_builder.site.hosting.check import check as run
    from atlas_builder.workspace import workers

    with workers(None) as pool:  # none starts for a small atlas
        report = run(folder, Progress(), pool)
    for line in (*report.sizes.lines, *report.lines):
        click.echo(line)
    _conclude(report.problems, report.summary)


@main.command(short_help="Put a built site into one zip.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="The zip.  [default: <atlas.id>-<version>.zip beside FOLDER]"
)
def archive(folder: Path, output: Path | None) -> None:
    """Put a built site into one zip, for Zenodo, for a release on GitHub, or to copy.

    The same site gives the same bytes. Two files beside the zip have its SHA-256 and the
    metadata for Zenodo. Run check first.

    \b
    Examples:
      atlas-builder archive output/demo
      atlas-builder archive output/demo --output release/demo.zip
    """
    from atlas_builder.site.hosting.archive import archive as run

    result = run(folder, output, Progress())
    click.echo(f"{result.file}: {result.bytes / 1e6:,.1f} MB, SHA-256 {result.sha256}")
    click.echo(f"{result.checksum}: SHA-256 for sha256sum --check")
    click.echo(f"{result.metadata}: metadata for Zenodo")
    for requirement in result.missing:
        click.echo(f"for Zenodo, add {requirement}")


@main.command(short_help="Run the model again and compare some units.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--units", default=8, show_default=True, type=click.IntRange(1), help="How many random units.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the random choice of units."
)
@click.option(
    "--curated", type=click.Path(path_type=Path), help="Compare every line of this file of curate, and no records."
)
@_overrides
def verify(folder: Path, units: int, seed: int, curated: Path | None, overrides: tuple[str, ...]) -> None:
    """Run the model again, by an independent implementation, and compare some units' records with it.

    Model and corpus are read from where the build read them; for an atlas from another
    machine, name their places with --set.

    \b
    Examples:
      atlas-builder verify output/demo --units 20
      atlas-builder verify downloaded --set model.name=gpt2 --set corpus.path=texts.jsonl
      atlas-builder verify output/logits --curated output/logits.curated.jsonl
    """
    from atlas_builder.verify.curated import verify_curated
    from atlas_builder.verify.run import verify as run

    again: dict[str, Any] = {"overrides": overrides, "progress": Progress()}
    report = verify_curated(folder, curated, **again) if curated else run(folder, units=units, seed=seed, **again)
    _conclude(report.problems, report.summary)


@main.command(short_help="Write examples from a part of the range of units.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--units", "-u", multiple=True, metavar="ID",
    help="As in the address of its page, such as L4/N0; may be repeated.  [default: all]",
)  # fmt: skip
@click.option(
    "--side", type=click.Choice(["own", "others", "positive"]),
    help="Of output neurons, where their token comes next (own, the default) or another; of other units, positive.",
)  # fmt: skip
@click.option(
    "--quantiles", nargs=2, type=float, metavar="LOW HIGH",
    help="Of own activations (default 0 0.1), or of positive ones (0.5 0.9).",
)  # fmt: skip
@click.option("--number", default=100, show_default=True, type=click.IntRange(1), help="Most examples of a unit.")
@click.option("--seed", default=0, type=click.IntRange(0, 2**63 - 1), help="Seed of the choice.  [default: 0]")
@click.option("--output", type=click.Path(path_type=Path), help="The file.  [default: beside FOLDER, .curated.jsonl]")
@click.option("--report", type=click.Path(path_type=Path), help="Also write the units' associations to this CSV file.")
def curate(folder: Path, number: int, **choice: Any) -> None:
    """Write examples of units from a part of their range, a line of JSON each, to filter or to train on.

    They are read from what the build kept beside FOLDER, of other units than output neurons
    where it was built with describe.associations. verify --curated compares every line.

    \b
    Examples:
      atlas-builder curate output/logits --units L4/N0 --number 20
      atlas-builder curate output/logits --side others --quantiles 0.5 0.9 --output others.jsonl
      atlas-builder curate output/logits --report associations.csv
    """
    from atlas_builder.curate.run import curate as run
    from atlas_builder.curate.run import said

    _say(said(run(folder, number=number, progress=Progress(), **choice), number))


@main.command(short_help="Have another language model explain behaviours; score it.")
@click.argument("folder", type=click.Path(path_type=Path))
@explain_options
@_overrides
def explain(folder: Path, **asked: Any) -> None:
    """Have another language model explain behaviours and units, and score what it says.

    Excerpts of the corpus are sent to the server, about 20 questions a behaviour and 27 a whole unit; the
    environment variable OPENAI_API_KEY is sent as its key. Scores come with a random floor, those
    of the same explanation on another unit's excerpts. An interrupted run resumes and asks nothing twice.

    \b
    Examples:
      atlas-builder explain output/demo --server http://localhost:8000/v1 --model my-model
      atlas-builder explain output/demo --server http://localhost:8000/v1 --model my-model --only L2/N17#b3
      atlas-builder explain output/demo --server http://localhost:8000/v1 --model my-model --units 50 --no-baselines
      atlas-builder explain output/demo --from neuronpedia:batch-0.jsonl.gz
      atlas-builder explain output/demo --from delphi:results --server http://localhost:8000/v1 --model my-judge
    """
    from atlas_builder.explain.command import run_explain

    run_explain(folder, progress=Progress(), say=_say, **asked)


main.add_command(export)
main.add_command(label)


def _conclude(problems: list[str], summary: str) -> None:
    """Print problems and summary; exit with 1 where there are problems."""
    for problem in problems[:50]:
        click.echo(problem, err=True)
    if len(problems) > 50:
        click.echo(f"and {len(problems) - 50} more", err=True)
    click.echo(summary)
    sys.exit(1 if problems else 0)


_say: Callable[[str], None] = click.echo
