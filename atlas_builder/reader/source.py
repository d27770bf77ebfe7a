"""Sources of the files of a built site: a folder, or an http address."""

from __future__ import annotations

import os
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import Request, url2pathname, urlopen

from atlas_builder.errors import SiteError

_TIMEOUT = 30  # seconds without a byte
_FRONT = ("index.html", "atlas.json")


@dataclass(frozen=True)
class FolderSource:
    """A site on disk."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def url(self, name: str) -> str:
        """The address of a file."""
        return f"{self.root.as_uri()}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none; `SiteError` where it cannot be read."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SiteError(f"{self.root / name} cannot be read: {error.strerror or error}.") from None


@dataclass(frozen=True)
class HttpSource:
    """A site at an http address, which ends with a slash."""

    root: str

    def __str__(self) -> str:
        return self.root

    def url(self, name: str) -> str:
        """The address of a file."""
        return self.root + name

    def read(self, name: str) -> bytes | None:
        """As `FolderSource.read`; None for the status 404."""
        # Some hosts refuse urllib's own name.
        request = Request(self.url(name), headers={"User-Agent": "atlas-builder"})
        try:
            with urlopen(request, timeout=_TIMEOUT) as response:
                content: bytes = response.read()
                return content
        except HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            raise SiteError(
                f"{self.url(name)} cannot be read: the server returns {error.code} {error.reason}."
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise SiteError(f"{self.url(name)} cannot be read: {getattr(error, 'reason', error)}.") from None


Source = FolderSource | HttpSource


def source(place: str | os.PathLike[str]) -> Source:
    """The source at a path or an address, of the site or of its first page."""
    text = os.fspath(place)
    if not text.lower().startswith(("http://", "https://", "file:")):
        return _folder(Path(text).expanduser())
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise SiteError(f"{text} is not an address: {error}.") from None
    if parts.scheme == "file":
        return _folder(Path(url2pathname(parts.path)))
    head, _, last = parts.path.rpartition("/")
    path = quote(head if last in _FRONT else parts.path.rstrip("/"), safe="/%!$&'()*+,;=:@")
    return HttpSource(urlunsplit((parts.scheme, parts.netloc, f"{path}/", "", "")))


def _folder(path: Path) -> FolderSource:
    return FolderSource((path.parent if path.name in _FRONT else path).resolve())
