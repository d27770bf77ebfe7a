"""Settings of the site: how pages are made, and how much they show."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from atlas_builder.settings.section import IsPath, Section
from atlas_builder.settings.text import Address


class SiteSettings(Section):
    """How pages are made, and how much they show."""

    theme: Annotated[str, IsPath(by_slash=True)] = "atlas"
    """Name of a shipped theme, or path of a folder of templates with a slash in it, such as `./my-theme`."""
    examples_per_behaviour: int = Field(default=6, ge=1, le=1000)
    """Most examples shown per behaviour, on a page and in a record; its size counts all, and a rare one shows one."""
    examples_per_unit: int = Field(default=10, ge=1, le=10_000)
    """Most examples that a unit's behaviours show together, though each main one shows at least `examples_at_least`."""
    examples_at_least: int = Field(default=2, ge=1, le=1000)
    """Examples that each main behaviour shows where it has so many, whatever `examples_per_unit` leaves it; never more
    than `examples_per_behaviour`."""
    activation_titles: bool = True
    """Whether the activation of a highlighted token of an example shows under the pointer; records always have it."""
    planes: bool = True
    """Whether a page draws its unit's examples by principal coordinates."""
    tokens_before: int = Field(default=20, ge=0, le=500)
    """Most tokens shown before the key token of an example, out of `examples.window`."""
    tokens_after: int = Field(default=10, ge=0, le=500)
    """Most tokens shown after the key token, out of `examples.window`."""
    noise_shown: int = Field(default=2, ge=0, le=1000)
    """Most unclustered examples shown per unit, of each sign."""
    neighbours_shown: int = Field(default=3, ge=0, le=100)
    """Similar behaviours listed per behaviour, on a page and in a record; a rare one lists none."""
    band_examples_shown: int = Field(default=4, ge=0, le=100)
    """Tokens shown per band, out of `examples.per_band`."""
    host: Literal["github-pages", "none"] = "none"
    """Host whose limits the site is fitted to and checked against: `github-pages` allows 1 GB. Where necessary, less is
    shown per unit."""
    counterpart: Address | None = Field(
        default=None, pattern=r"^[^\s\"'<>{}\\:]+$|^https?://[^\s\"'<>{}\\]+$", max_length=2000
    )
    """Address of the folder of another atlas of the same model, of its neurons for an atlas of directions and the other
    way round, absolute or relative to this atlas's folder, such as `../neurons`: what neurons read links to it."""
    above: Address | None = Field(
        default=None, pattern=r"^[^\s\"'<>{}\\:]+$|^https?://[^\s\"'<>{}\\]+$", max_length=2000
    )
    """Address of a page above this atlas, absolute or relative to its folder, such as `../index.html`; every page's
    header links to it."""
    prose: Annotated[str | None, IsPath()] = None
    """Folder of Markdown pages published with the atlas; the builder's own when empty."""
    explanations: Annotated[str | None, IsPath()] = None
    """File of explanations in words that `atlas-builder explain` wrote, published beside the computed labels, each with
    the model that said it; none when empty."""
    stale_explanations: Literal["show", "refuse"] = "show"
    """What becomes of explanations of another edition of a unit, whose hash differs: `show` marks them as such,
    `refuse` ends the build."""
