"""What can go wrong, as one sentence a person can act on."""

from __future__ import annotations


class AtlasError(Exception):
    """Base of every error that is the user's to mend; its text is one clear sentence.

    `exit_status` is what the command line ends with.
    """

    exit_status = 1


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
    """A built site that fails a check, or cannot be read."""


class MissingError(SiteError, KeyError):
    """A layer, unit or behaviour that an atlas does not have; a `KeyError` whose text is a sentence all the same."""

    __str__ = Exception.__str__


class NoAtlasError(SiteError, ConfigurationError):
    """A folder or address that a command was given, and that holds no atlas, or one of another version."""


class OutOfMemoryError(AtlasError):
    """A device whose memory does not hold what a build needs at least."""
