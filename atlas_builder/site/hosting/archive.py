"""A built site as one file: for a release, for Zenodo, to carry.

A zip, since every system opens it without further tools, Zenodo lists its files, and one
record can be read without the rest; a tar.gz is a fifth smaller, but on Windows few can
open it by a click. ZIP64 where required: beyond 65,535 files or 4 GB.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import re
import shutil
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from atlas_builder.config import AtlasSettings
from atlas_builder.corpus.token_text import plain
from atlas_builder.errors import ConfigurationError, SiteError
from atlas_builder.progress import Progress
from atlas_builder.reader.facts import read_facts
from atlas_builder.site.hosting import size

_FIRST, _LAST = datetime.date(1980, 1, 1), datetime.date(2107, 12, 31)  # the days that a zip can name
_CHUNK = 2**20  # bytes
ZENODO_LIMIT = 50_000_000_000
"""Bytes of a record on Zenodo, of 100 files at most (https://help.zenodo.org/docs/deposit/manage-files)."""


class Archive(NamedTuple):
    """What `archive` wrote."""

    file: Path
    """The zip."""
    bytes: int
    sha256: str
    checksum: Path
    """Beside it, the SHA-256 as `sha256sum --check` reads it."""
    metadata: Path
    """Beside it, the metadata for Zenodo, as its API takes it."""
    missing: list[str]
    """What to add for Zenodo, a sentence each."""


def archive(site: Path, output: Path | None = None, progress: Progress | None = None) -> Archive:
    """Write a built site as one zip, its checksum and Zenodo's metadata beside it.

    Its files are in one folder, `<atlas.id>-<version>`. By default the zip is
    `<atlas.id>-<version>.zip` beside the site; `output` names another file. The bytes depend
    only on the site's content and the zlib that compresses: every file has the edition's
    date, or 1980 without one. Memory grows with the number of files, not with their size.

    Args:
        site: The folder of a built atlas.
        output: The zip.
        progress: Where to report; quiet by default.

    Returns:
        What was written, and what Zenodo still requires.

    Raises:
        ConfigurationError: If the folder holds no atlas or `output` cannot be written.
        SiteError: If a file has a name that another system could not unpack. A file already at
            `output` is left unchanged in either case.

    Example:
        >>> import atlas_builder
        >>> from pathlib import Path
        >>> atlas_builder.archive(Path("output/my-model")).file.name
        'my-model-1.zip'
    """
    atlas, date, deposit, missing = _read(site)
    top = _name(atlas)
    file = (site.resolve().parent / f"{top}.zip" if output is None else output).resolve()
    _check_output(file, site.resolve())
    files = size.site_files(site)
    # On another machine links would break, and invalid names would stop the unpacking half-way.
    if problems := [*size.kind_problems(files, "none"), *size.name_problems(files)]:
        more = f" (and {len(problems) - 1} more: run atlas-builder check {site})" if len(problems) > 1 else ""
        raise SiteError(f"{problems[0]}{more}")
    draft = file.with_name(f".{file.name}.draft")
    try:
        _write_zip(draft, site, files, top, date, progress or Progress(quiet=True))
        digest = _sha256(draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    checksum, metadata = file.with_name(f"{file.name}.sha256"), file.with_suffix(".zenodo.json")
    checksum.write_bytes(f"{digest}  {file.name}\n".encode())
    metadata.write_bytes(orjson.dumps(deposit, option=orjson.OPT_INDENT_2) + b"\n")
    if file.stat().st_size > ZENODO_LIMIT:
        missing.append(f"a larger quota: a record holds {ZENODO_LIMIT / 1e9:.0f} GB.")
    return Archive(file, file.stat().st_size, digest, checksum, metadata, missing)


def _read(site: Path) -> tuple[AtlasSettings, datetime.date, dict[str, Any], list[str]]:
    """From an atlas's facts: how it is cited, its date within a zip's range, Zenodo's metadata, what these lack."""
    facts = read_facts(site)
    try:
        atlas = AtlasSettings.model_validate(facts["atlas"])
        date = datetime.date.fromisoformat(facts["date"]) if facts["date"] else _FIRST
        return atlas, min(max(_FIRST, date), _LAST), *zenodo(facts, atlas)
    except (ValueError, KeyError, TypeError):
        raise SiteError(f"{site / 'atlas.json'} is damaged: build the atlas again.") from None


def _name(atlas: AtlasSettings) -> str:
    """`<id>-<version>`, the version without characters that a file system may refuse."""
    version = re.sub(r"[^A-Za-z0-9._-]+", "-", atlas.version).strip("-. ")
    return f"{atlas.id}-{version or 'edition'}"


def _check_output(file: Path, site: Path) -> None:
    if file.suffix != ".zip":
        raise ConfigurationError(f"--output: {file} must end with .zip: rename it.")
    if file.is_dir():
        raise ConfigurationError(f"--output: {file} is a folder: name a file.")
    if not file.parent.is_dir():
        raise ConfigurationError(f"--output: folder {file.parent} is not found: create it, or name another.")
    if file.is_relative_to(site):
        raise ConfigurationError(f"--output: {file} is inside the site: name a file outside {site}.")


def _write_zip(
    draft: Path,
    site: Path,
    files: Sequence[size.File],
    top: str,
    date: datetime.date,
    progress: Progress,
) -> None:
    with (
        zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as target,
        progress.task("archive", total=len(files), unit="files") as advance,
    ):
        for file in files:
            info = zipfile.ZipInfo(f"{top}/{file.name}", (date.year, date.month, date.day, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, whatever wrote it: what follows are its permissions
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = file.bytes  # tells zipfile whether an entry needs ZIP64
            with (site / file.name).open("rb") as source, target.open(info, "w") as entry:
                shutil.copyfileobj(source, entry, _CHUNK)
            advance(1)


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def zenodo(facts: dict[str, Any], atlas: AtlasSettings) -> tuple[dict[str, Any], list[str]]:
    """An atlas's metadata for Zenodo, as its API takes it, and what to add.

    The fields are those of https://developers.zenodo.org/#representation. A DOI that Zenodo
    reserved for a draft belongs to the draft and is left out; one from elsewhere is included.
    """
    units = sum(layer["units"] for layer in facts["layers"])
    model, corpus = facts["model"]["name"], facts["corpus"]["name"] or facts["corpus"]["source"]
    text = (
        f"A browsable atlas of {units:,} units in {len(facts['layers'])} layers of {model}, on the text of {corpus}: "
        "for each unit, its behaviours with examples, as a page and as a JSON record. "
        "Unpack it and open index.html; it needs no server and no network."
    )
    method = {"identifier": "arXiv:2411.08166", "relation": "cites", "resource_type": "publication-preprint"}
    site = {"identifier": atlas.url, "relation": "isIdenticalTo"}
    fields = {
        "title": plain(facts["title"]),
        "upload_type": "dataset",
        "publication_date": facts.get("date"),
        "description": f"<p>{html.escape(plain(text))}</p>",
        "creators": [{**author.model_dump(exclude_none=True), "name": plain(author.name)} for author in atlas.authors],
        "version": atlas.version,
        "access_right": "open",
        # Zenodo knows licences by their SPDX names, in small letters.
        "license": atlas.license.lower() if re.fullmatch(r"[A-Za-z0-9.+-]+", atlas.license) else None,
        "keywords": ["interpretability", "neurons", "language models"],
        "related_identifiers": [*([site] if atlas.url else []), method],
        "doi": None if (atlas.doi or "").startswith("10.5281/zenodo.") else atlas.doi,
    }
    missing = []
    if not fields["creators"]:
        missing.append("creators: set atlas.authors, or fill them in.")
    if not fields["license"]:
        missing.append(f"a license: {atlas.license} is not a single SPDX name; choose one in the form.")
    if not atlas.doi:
        missing.append("a DOI: reserve one in the form, set atlas.doi and build again, so that pages show it.")
    return {"metadata": {name: value for name, value in fields.items() if value}}, missing
