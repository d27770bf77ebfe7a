"""How a build is divided: the options of the command, and what each asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atlas_builder.errors import ConfigurationError
from atlas_builder.progress import Progress

if TYPE_CHECKING:  # what commands do not use is not imported
    from atlas_builder.config import Configuration

_Command = TypeVar("_Command", bound=Callable[..., Any])


def division_options(command: _Command) -> _Command:
    """Give a command the options of `Division`."""
    for option in (
        click.option(
            "--scheduler",
            metavar="ADDRESS|FILE",
            help="Build on the workers of this Dask scheduler: its address, or its --scheduler-file.",
        ),
        click.option(
            "--shards",
            type=click.IntRange(1, 1000),
            metavar="N",
            help="Run the pass as N parallel shards on this machine.",
        ),
        click.option("--shard", metavar="I/N", help="Run only shard I of N of the pass over the corpus; see merge."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Division:
    """How a build is divided; raises `ConfigurationError` where that is asked for in two ways."""

    shard: str | None = None
    shards: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("shard", "shards", "scheduler") if getattr(self, name) is not None]
        if self.scheduler is not None and len(given) > 1:
            raise ConfigurationError(f"--scheduler divides the pass itself: leave out --{given[0]}.")

    def run_shard(self, config: Configuration, output: Path, file: Path, progress: Progress) -> str | None:
        """Run the one shard that is asked for, and return what to say then; None where none is."""
        if not self.shard:
            return None
        from atlas_builder.pipeline.shards import collect_shard, parse_shard

        number, of = parse_shard(self.shard)
        collect_shard(config, output, number, of, progress=progress)
        return f"shard {number}/{of} is done; when all are, run: atlas-builder merge {file}"

    def run_shards(self, config: Configuration, output: Path, progress: Progress) -> None:
        """Run all shards that are asked for in processes of this machine, unless the pass is done."""
        from atlas_builder.pipeline.build import holds_pass
        from atlas_builder.pipeline.shards import collect_shards
        from atlas_builder.workspace import workers

        if self.shards and not holds_pass(config, output):
            with workers(None, self.shards) as pool:
                collect_shards(config, output, self.shards, pool, progress)
