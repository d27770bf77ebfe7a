"""The lines of a file of curated examples, compared with a second run of the model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from atlas_builder.corpus.text_files import BrokenFileError, lines
from atlas_builder.errors import ConfigurationError, brief
from atlas_builder.models.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.rerun.borders import utf8
from atlas_builder.rerun.passes import trace_units
from atlas_builder.rerun.source import Rerun, ids_of_output_tokens, open_rerun
from atlas_builder.verify.histograms import EDGES, LOWEST
from atlas_builder.verify.own import own_edge
from atlas_builder.verify.precision import stated_tolerance, tolerance
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.shown import Key, KeyFinder, whole_window

Line = dict[str, Any]

_LONGEST = 10_000_000  # bytes of a line
_NUMBER, _TEXT = (int, float), (str,)
_FIELDS: dict[str, tuple[type, ...]] = {
    "unit": _TEXT, "token": (str, type(None)), "side": _TEXT, "quantiles": (list,), "quantile": _NUMBER,
    "activation": _NUMBER, "next": (str, type(None)), "document": (int,), "source": _TEXT, "position": (int,),
    "text": _TEXT, "span": (list,), "attributes": (dict,), "seed": (int,), "url": _TEXT,
}  # fmt: skip
"""The types of the fields of a line; true and false are no numbers."""


def verify_curated(
    site: Path, file: Path, *, overrides: tuple[str, ...] = (), progress: Progress | None = None
) -> VerificationReport:
    """Run the model again over the whole text and compare every line of a file of curated examples.

    Raises what `open_rerun` does, and `ConfigurationError` where the file cannot be read or has no line.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    if not file.is_file():
        raise ConfigurationError(f"--curated: {file} is not a file: name one that curate wrote.")
    source = open_rerun(site, overrides)
    report = VerificationReport(precision=stated_tolerance(source.config.model.dtype))
    examples = list(_examples(file, source, report))
    if not examples and not report.problems:
        raise ConfigurationError(f"--curated: {file} has no line: name one with examples.")
    units: dict[int, list[int]] = {}
    for _, address, _ in examples:
        units.setdefault(address.layer, []).append(address.unit)
    units = {layer: sorted(set(numbers)) for layer, numbers in sorted(units.items())}
    values: dict[UnitAddress, NDArray[np.float64]] = {}
    if units:
        with progress.task("read", total=source.text.tokens, unit="tokens") as advance:
            traces = trace_units(source.reader, source.text, units, advance, units)
        for layer, numbers in units.items():
            for place, unit in enumerate(numbers):
                values[UnitAddress(layer, unit)] = traces[layer].values[:, place].astype(np.float64)
    checker = _Checker(source)
    met: set[tuple[Any, ...]] = set()
    for what, address, line in examples:
        example = (address, line["document"], line["position"])
        if example in met:
            report.wrong(f"{what}: is the same example as a line before")
        met.add(example)
        checker.check(what, address, line, values[address], report)
    return report


def _examples(file: Path, source: Rerun, report: VerificationReport) -> Iterator[tuple[str, UnitAddress, Line]]:
    """The lines that are of a unit of the atlas, each with its name."""
    counts = {int(layer["layer"]): int(layer["units"]) for layer in source.facts["layers"]}
    for number, raw in enumerate(_raw_lines(file), start=1):
        what = f"line {number}"
        if raw is None:
            report.wrong(f"{what}: is longer than {_LONGEST:,} bytes")
            continue
        try:
            line = orjson.loads(raw)
        except ValueError:
            report.wrong(f"{what}: is not JSON")
            continue
        if not isinstance(line, dict) or any(type(line.get(name)) not in types for name, types in _FIELDS.items()):
            report.wrong(f"{what}: is no curated example: a field is missing or of another type")
            continue
        address = UnitAddress.parse(line["unit"])
        if address is None or address[0] != source.config.atlas.id:
            report.wrong(f"{what}: {brief(line['unit'], 60)} is no unit of this atlas")
        elif address[1].unit >= counts.get(address[1].layer, 0):
            report.wrong(f"{what}: {brief(line['unit'], 60)} is beyond the units of this atlas")
        else:
            yield what, address[1], line


def _raw_lines(file: Path) -> Iterator[bytes | None]:
    """The lines of a file, packed or not; None for a longer one than is read."""
    try:
        yield from lines(file, _LONGEST)
    except BrokenFileError as problem:
        raise ConfigurationError(f"--curated: {brief(file, 150)} {problem}: name one that curate wrote.") from None


class _Checker:
    def __init__(self, source: Rerun) -> None:
        self.config, self.text, self.texts = source.config, source.text, source.reader.token_texts
        self._tokens = ids_of_output_tokens(source.facts)
        self._finder = KeyFinder(source.text)

    def check(
        self, what: str, address: UnitAddress, line: Line, values: NDArray[np.float64], report: VerificationReport
    ) -> None:
        """Compare a line; `values` are the unit's activations at every token: (tokens,)."""
        report.count("lines")
        token = self._tokens[address.unit] if self._tokens else None
        key = self._finder.find(line["document"], line["position"])
        if key is None:
            report.wrong(f"{what}: document {line['document']} has no token {line['position']}")
            return
        at = int(self.text.starts[key.context]) + key.position
        following = int(self.text.following[at])
        url = self.config.atlas.url
        text, span = self._shown(key)
        attributes = self.text.attributes[line["document"]] if self.text.attributes else {}
        role = self.text.roles[key.context][key.position] if self.text.roles else None
        for name, expected in (
            ("unit", address.within(self.config.atlas.id)),
            ("token", None if token is None else self.texts[token]),
            ("next", None if following < 0 else self.texts[following]),
            ("source", self.text.names[line["document"]]),
            ("text", text),
            ("span", span),
            ("role", role),
            ("attributes", dict(attributes)),
            ("url", f"{url.rstrip('/')}/{address.page}" if url else address.page),
        ):
            if line.get(name) != expected:  # but a role, each is there
                report.wrong(f"{what}: {name} is {brief(line[name], 80)!r}, but should be {brief(expected, 80)!r}")
        largest = float(np.abs(values).max(initial=0)) or 1.0
        near = tolerance("activation", self.config.model.dtype)
        report.compare("activations", f"{what}: activation", line["activation"], float(values[at]), near, largest)
        self._check_side(what, line, token, following, values, at, near * largest, report)

    def _check_side(
        self,
        what: str,
        line: Line,
        token: int | None,
        following: int,
        values: NDArray[np.float64],
        at: int,
        near: float,
        report: VerificationReport,
    ) -> None:
        """Compare the side, and the place of the activation among those that its quantiles are of."""
        side = "positive" if token is None else "own" if following == token else "others"
        if line["side"] != side or (token is not None and following < 0) or not self.text.counted[at]:
            report.wrong(f"{what}: side is {brief(line['side'], 20)!r}, but is {side!r}")
            return
        if token is None:
            reference = np.sort(values[(values >= LOWEST) & self.text.counted])
            # By the lower edge of its bin, as far as rounding may move it.
            ends = [EDGES[max(0, int(np.searchsorted(EDGES, values[at] + by, "right")) - 1)] for by in (-near, near)]
        else:
            reference = np.sort(values[(self.text.following == token) & self.text.counted])
            ends = [values[at] - near, values[at] + near]
        low, high = (float(np.searchsorted(reference, end, "left")) / max(1, len(reference)) for end in ends)
        report.count("quantiles")
        slack = 5e-4 * max(high, 1e-9) + 1e-9
        if not low - slack <= line["quantile"] <= high + slack:
            report.wrong(f"{what}: quantile is {line['quantile']}, but should be {low:.4g} to {high:.4g}")
        wanted = line["quantiles"]
        if len(wanted) != 2 or not all(type(one) in _NUMBER for one in wanted) or not 0 <= wanted[0] < wanted[1] <= 1:
            report.wrong(f"{what}: quantiles are not two that rise, from 0 to 1")
            return
        if token is None:  # what its bin reaches up to
            upper = EDGES[min(len(EDGES) - 1, int(np.searchsorted(EDGES, values[at] + near, "right")))]
            high = float(np.searchsorted(reference, upper, "left")) / max(1, len(reference))
            is_between = high >= wanted[0] - slack and low <= wanted[1] + slack
        else:
            first, last = (own_edge(reference, quantile, np.inf) for quantile in wanted)
            is_between = first - near <= values[at] <= last + near
        if not is_between:
            report.wrong(f"{what}: its activation is not between the quantiles {wanted[0]:g} and {wanted[1]:g}")

    def _shown(self, key: Key) -> tuple[str, list[int]]:
        """The text around a token and where the token's characters are in it."""
        tokens, kept = self.text.contexts[key.context][2], self.config.examples.window
        before, after = whole_window(self.text, key, *kept)
        left, right = whole_window(self.text, key, 0, 0)
        edges = (key.position - before, key.position - left, key.position + right + 1, key.position + after + 1)
        parts = [self._joined(tokens[low:high]) for low, high in pairwise(edges)]
        return "".join(parts), [len(parts[0]), len(parts[0]) + len(parts[1])]

    def _joined(self, tokens: list[int]) -> str:
        """Tokens as text; bytes that make no character as <0xE2>."""
        raw = b"".join(utf8(self.texts[token]) for token in tokens)
        return "".join(
            f"<0x{ord(one) - 0xDC00:02X}>" if "\udc80" <= one <= "\udcff" else one
            for one in raw.decode("utf-8", "surrogateescape")
        )
