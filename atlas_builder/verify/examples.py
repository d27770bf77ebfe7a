"""The published examples of a unit: which they are, their text, activations and token importance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.config import SiteSettings
from atlas_builder.rerun.passes import Reader
from atlas_builder.rounding import grain_of
from atlas_builder.verify.precision import tolerance
from atlas_builder.verify.report import VerificationReport
from atlas_builder.verify.shown import Key, KeyFinder, activations, around, per_main, spread, whole_window, window
from atlas_builder.verify.unit import UnitCase

Record = dict[str, Any]
Importance = NDArray[np.float64]

_GRAIN = 0.01  # of a published importance


def keys_of_record(case: UnitCase) -> list[Key | None]:
    """The place of the key token of each published example; None where the text has no such token."""
    finder = KeyFinder(case.text)
    return [finder.find(example["document"], example["position"]) for example in case.record["examples"]]


def expected_keys(case: UnitCase, site: SiteSettings) -> list[tuple[Key, int | None]]:
    """The examples that a record shows, those of bands aside: each with the number of its behaviour."""
    behaviours = case.behaviours or []
    mains = sum(behaviour.main for behaviour in behaviours)
    most = per_main(site, mains, len(behaviours) - mains)
    shown: list[tuple[Key, int | None]] = []
    for number, behaviour in enumerate(behaviours, 1):
        keys = spread(behaviour.members, most if behaviour.main else 1, case.text, behaviour.central)
        shown += [(key, number) for key in keys]
    for sign in (1, -1):
        shown += [(key, None) for key in spread(case.unclustered(sign), site.noise_shown, case.text)]
    return shown


def check_examples(
    case: UnitCase,
    site: SiteSettings,
    of_bands: list[Key],
    importance: Mapping[Key, Importance],
    report: VerificationReport,
) -> None:
    """Compare all published examples with those that were found; `of_bands` are the tokens shown of the bands."""
    found = keys_of_record(case)
    shown = expected_keys(case, site)
    rare = {number for number, behaviour in enumerate(case.behaviours or [], 1) if not behaviour.main}
    if len(found) != len(shown) + len(of_bands):
        report.wrong(f"{case.name}: shows {len(found)} examples, but {len(shown) + len(of_bands)} were found")
        return
    expected = shown + [(key, None) for key in of_bands]
    indices: dict[int | None, list[int]] = {}
    for index, (example, key, (other, behaviour)) in enumerate(
        zip(case.record["examples"], found, expected, strict=True)
    ):
        what = f"{case.name}: document {example['document']}, token {example['position']}"
        in_band = index >= len(shown)
        if key is None:
            report.wrong(f"{what} is not in the corpus")
        elif key != other and (in_band or not _interchangeable(case, key, other)):
            document, offset, _ = case.text.contexts[other.context]
            report.wrong(f"{what} is shown, instead of document {document}, token {offset + other.position}")
        else:
            kind = "band" if in_band else "rare" if behaviour in rare else "main"
            kept = case.config.examples.window
            shown_around = whole_window(case.text, key, *around(site, kept, kind), kept)
            _check_example(case, report, what, example, key, shown_around)
            _check_source(case, report, what, example, in_band)
            _check_importance(case, report, what, example, key, None if in_band else importance.get(key))
            if example["behaviour"] != behaviour:
                report.wrong(f"{what} is published as behaviour {example['behaviour']}, but computed as {behaviour}")
        if not in_band:
            indices.setdefault(behaviour, []).append(index)
    for number, claimed in enumerate(case.record["behaviours"], 1):
        if claimed["examples"] != indices.get(number, []):
            report.wrong(f"{case.name}, behaviour {number}: lists other examples than its own")


def _interchangeable(case: UnitCase, one: Key, other: Key) -> bool:
    """Whether two examples of one behaviour, or two unclustered ones, may change places by rounding."""
    groups = [behaviour.members for behaviour in case.behaviours or ()] + [case.unclustered(1), case.unclustered(-1)]
    together = any(one in group and other in group for group in groups)
    near = tolerance("order", case.config.model.dtype) * case.largest
    return together and abs(case.activation(one) - case.activation(other)) <= near


def check_places(case: UnitCase, report: VerificationReport) -> None:
    """Compare text and activations of published examples alone, where another run may choose others."""
    bands = {index for band in case.record["bands"] for index in band["examples"]}
    for index, (example, key) in enumerate(zip(case.record["examples"], keys_of_record(case), strict=True)):
        what = f"{case.name}: document {example['document']}, token {example['position']}"
        if key is None:
            report.wrong(f"{what} is not in the corpus")
            continue
        before, after = example["key"], len(example["tokens"]) - example["key"] - 1
        _check_example(case, report, what, example, key, (before, after))
        _check_source(case, report, what, example, index in bands)


def _check_source(case: UnitCase, report: VerificationReport, what: str, example: Record, in_band: bool) -> None:
    source = None if in_band else case.text.names[example["document"]]
    if example.get("source") != source:
        report.wrong(f"{what}: its source is published as {example.get('source')!r}, but is {source!r}")


def _check_roles(case: UnitCase, report: VerificationReport, what: str, example: Record, key: Key) -> None:
    """Compare the role of the message that an example is of, and which of its tokens are the chat template's own."""
    role, special = None, []
    if case.text.roles:
        first = key.position - example["key"]
        role = case.text.roles[key.context][key.position]
        of_window = case.text.special_in(key.context)[first : first + len(example["tokens"])]
        special = [place for place, left_out in enumerate(of_window) if left_out]
        report.count("roles")
    if example.get("role") != role:
        report.wrong(f"{what}: its role is published as {example.get('role')!r}, but is {role!r}")
    if example.get("special", []) != special:
        report.wrong(f"{what}: other tokens are published as the chat template's own than are")


def _check_example(
    case: UnitCase, report: VerificationReport, what: str, example: Record, key: Key, shown: tuple[int, int]
) -> None:
    first, tokens = window(case.text, key, *shown)
    if example["key"] != key.position - first or [case.texts[token] for token in tokens] != example["tokens"]:
        report.wrong(f"{what}: the text around it differs from the corpus")
        return
    _check_roles(case, report, what, example, key)
    expected = activations(case.text, case.values, key.context)[first : first + len(tokens)].astype(np.float64)
    if len(example["values"]) != len(expected):
        report.wrong(f"{what}: has {len(example['values'])} activations of {len(expected)} tokens")
        return
    by_band = example["behaviour"] is None and "source" not in example
    lowest, highest = float(case.counted.min()), float(case.counted.max())
    is_negative = case.activation(key) < 0 and not by_band if highest > 0 else True
    extreme = -lowest if is_negative else highest
    differences = np.abs(np.array(example["values"]) - expected)
    report.count("activations", len(differences))
    # A chat template's own tokens may have far larger ones than count.
    largest = max(case.largest, float(np.abs(expected).max()))
    report.note("activations", float(differences.max()) / largest)
    if differences.max() > case.tolerance * largest + 0.501 * grain_of(extreme):
        worst = int(differences.argmax())
        report.wrong(
            f"{what}: the activation {worst - example['key']:+d} tokens on is published as "
            f"{example['values'][worst]:.4g}, but computed as {expected[worst]:.4g}"
        )


def importance_of(case: UnitCase, reader: Reader, keys: list[Key]) -> dict[Key, Importance]:
    """1 − a(masked) / a for each token up to a key token, `examples.window` before it at most."""
    found = {}
    for key in dict.fromkeys(keys):
        tokens = case.text.contexts[key.context][2]
        tokens = tokens[: key.position + 1] if reader.is_causal else tokens
        masked = range(max(0, key.position - case.config.examples.window[0]), key.position + 1)
        rows = [tokens, *([*tokens[:place], reader.mask, *tokens[place + 1 :]] for place in masked)]
        whole, *less = reader.at(rows, key.position, case.layer, case.unit).tolist()
        found[key] = np.array([1 - value / whole if whole else np.nan for value in less])
    return found


def measured_keys(case: UnitCase) -> list[Key]:
    """The examples whose importance is measured."""
    if case.config.describe.importance == "central":
        return [behaviour.central for behaviour in case.behaviours or () if behaviour.main and behaviour.central]
    if case.config.describe.importance == "shown":
        return [key for key, _ in expected_keys(case, case.config.site)]
    return []


def slack_of_importance(case: UnitCase, key: Key) -> float:
    """How far an importance may be off in another run."""
    return 2 * case.exactness * case.largest / max(abs(case.activation(key)), 1e-30)


def _check_importance(
    case: UnitCase, report: VerificationReport, what: str, example: Record, key: Key, found: Importance | None
) -> None:
    claimed = example.get("importance")
    if claimed is None or found is None:
        if not (claimed is None and found is None):
            report.wrong(f"{what}: importance is {'not ' if claimed is None else ''}published, against the settings")
        return
    expected = found[len(found) - 1 - example["key"] :]
    report.count("importance", len(claimed))
    if len(claimed) != len(expected):
        report.wrong(f"{what}: importance is published of {len(claimed)} tokens, but computed of {len(expected)}")
        return
    for place, (one, other) in enumerate(zip(claimed, expected.tolist(), strict=True)):
        slack = slack_of_importance(case, key) * (1 + abs(other)) + 0.5005 * _GRAIN
        if (one is None) != bool(np.isnan(other)) or (one is not None and not abs(one - other) <= slack):
            report.wrong(
                f"{what}: the importance {place - example['key']:+d} tokens on is published as {one}, "
                f"but computed as {other:.4g}"
            )
            return
