"""What the command `explain` is given; without anything that takes long to import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

METHODS = ("simulation", "detection", "fuzzing")
"""How explanations are scored."""
_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--server", metavar="URL", help="Base URL of a server with OpenAI's interface, up to and with /v1."
    ),
    click.option("--model", metavar="NAME", help="Name of the model on the server."),
    click.option("--judge-server", metavar="URL", help="Server of the model that scores.  [default: that of --server]"),
    click.option("--judge", metavar="NAME", help="Name of the model that scores.  [default: that of --model]"),
    click.option(
        "--behaviours", type=click.IntRange(0),
        help="How many random main behaviours.  [default: 20, or 0 with --units, --only or --from]",
    ),
    click.option("--units", type=click.IntRange(0), help="How many random whole units.  [default: 0]"),
    click.option(
        "--only", multiple=True, metavar="ID",
        help="A behaviour or unit by the address of its page, such as L2/N17#b3 or L2/N17; may be repeated.",
    ),
    click.option(
        "--from", "given", metavar="KIND:PATH",
        help="Take explanations of others, delphi:DIR or neuronpedia:FILE, or lines:FILE; scored with --server only.",
    ),
    click.option(
        "--scores", multiple=True, type=click.Choice(METHODS), help="How to score; may be repeated.  [default: all]"
    ),
    click.option(
        "--baselines/--no-baselines", default=True, show_default=True,
        help="Score labels and top tokens of behaviours as explanations too.",
    ),
    click.option(
        "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of all random choices."
    ),
    click.option("--at-once", default=16, show_default=True, type=click.IntRange(1, 64), help="Questions in parallel."),
    click.option(
        "--answer-tokens", metavar="N", type=click.IntRange(1),
        help="Most tokens of an answer; small models often do not stop by themselves.  [default: the server's]",
    ),
    click.option(
        "--output", type=click.Path(path_type=Path), help="The lines.  [default: FOLDER.explained.jsonl, beside FOLDER]"
    ),
)  # fmt: skip


def explain_options(command: _Command) -> _Command:
    """Give a command the options of `explain`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
