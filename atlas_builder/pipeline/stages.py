"""The stages of a build, in their order; nothing is imported, since every command names them."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["rotate", "collect", "cluster", "describe", "link", "publish"]
ALL_STAGES: tuple[Stage, ...] = get_args(Stage)
STAGES = ALL_STAGES[1:]
"""The stages of every build."""
