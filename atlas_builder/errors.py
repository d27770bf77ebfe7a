"""The errors of the package, each one sentence that a person can act on."""

from __future__ import annotations


class AtlasError(Exception):
    """Base of every error that the user can fix; its text is one clear sentence.

    `exit_status` is the exit status of the command line.
    """

    exit_status = 1


def brief(text: object, most: int = 60) -> str:
    """What was given, for a sentence: on one line, what is invisible as an escape, the middle left out where long."""
    whole = str(text)
    kept = whole if len(whole) <= most else f"{whole[: most - most // 3 - 1]}…{whole[-(most // 3) :]}"
    visible = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in kept)
    # Escapes are longer than what they stand for.
    return visible if len(visible) <= most else f"{visible[: most - 1]}…"


class ConfigurationError(AtlasError):
    """A command or configuration that cannot be carried out as written."""

    exit_status = 2


class CorpusError(AtlasError):
    """A corpus that is empty or broken."""


class ModelError(AtlasError):
    """A model that cannot be loaded or read."""

    exit_status = 2


class ActivationError(AtlasError):
    """A model that computed something that is not a number."""


class SiteError(AtlasError):
    """A built site that fails a check or cannot be read."""


class MissingError(SiteError, KeyError):
    """A layer, unit or behaviour that an atlas does not have; a `KeyError` whose text is still a sentence."""

    __str__ = Exception.__str__


class NoAtlasError(SiteError, ConfigurationError):
    """A folder or address given to a command that holds no atlas, or an atlas of another version."""


class OutOfMemoryError(AtlasError):
    """A device with less memory than a build needs at the very least."""
