"""Progress bars of a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Units of work per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


def bars_on(console: Console, unit: str) -> Progress:
    """Bars on a terminal that count a `unit` of work; a task has the field `note`, shown beside its count."""
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[note]}"),
        _Rate(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
    )
