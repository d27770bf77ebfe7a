"""Verification: some units of a published atlas, read again from the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.describe.steering import EXAMPLES_CLAMPED
from atlas_builder.describe.token_scores import HELD_OUT_EVERY
from atlas_builder.files import read_json
from atlas_builder.models.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.records.address import UnitAddress
from atlas_builder.rerun.passes import Reader, Text, trace_units
from atlas_builder.rerun.source import open_rerun
from atlas_builder.verify.claims import ClaimedSide, Claims, VerificationReport, sides


def verify(
    site: Path,
    *,
    units: int = 8,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> VerificationReport:
    """Run the model again and compare what the records of some random units claim.

    Statistics are taken over the whole corpus once more; examples are chosen anew, and
    their text, activations, bands, neuron embeddings (by their distances), measures, what
    their key tokens foretell, and what happens when the unit is held, are compared. The
    model is read by transformers alone. `overrides` are `KEY=VALUE`, for a model or corpus
    that lies elsewhere than when the atlas was built. Raises what `rerun.source.open_rerun` does.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    source = open_rerun(site, overrides)
    _, config, reader, text = source
    report = VerificationReport()
    chosen = source.draw(units, seed)
    with progress.task("read", total=text.tokens, unit="tokens") as advance:
        found = trace_units(reader, text, chosen, advance)
    held_out = _held_out(reader, text, chosen) if config.describe.prediction else {}
    with progress.task("compare", total=sum(map(len, chosen.values())), unit="units") as advance:
        for layer, numbers in chosen.items():
            for place, unit in enumerate(numbers):
                record = read_json(site / UnitAddress(layer, unit).record)
                claims = Claims(record, report, config, text, reader.token_texts)
                both = list(sides(found[layer], place, layer, unit, reader.has_negative[layer], config))
                claims.statistics(found[layer], place)
                claims.bands(found[layer], place)
                _check_examples(reader, text, claims, both, layer, unit)
                if record.get("prediction") and not both[0].unsure:
                    claims.look_up(both[0], {number: own[layer][:, place] for number, own in held_out.items()})
                if record.get("steering") and not both[0].unsure:
                    _check_held(reader, text, claims, both[0], layer, unit)
                advance(1)
    return report


def _check_examples(reader: Reader, text: Text, claims: Claims, both: list[ClaimedSide], layer: int, unit: int) -> None:
    """Run the contexts once more that the unit's examples are in."""
    wanted = claims.contexts().union(*(side.chosen.tolist() for side in both))
    activations: dict[tuple[int, int], NDArray[np.float32]] = {}
    inputs: dict[tuple[int, int], NDArray[np.float32]] = {}
    for batch, seen in reader.run(text, sorted(wanted), [layer]):
        given, fired = seen[layer]
        for row, number in enumerate(batch):
            activations[number, unit] = fired[row, :, unit].numpy().copy()
            for side in both:
                inputs[number, side.sign] = given[row, int(side.at[number])].numpy().copy()
    claims.examples(both, activations)
    read_weights = reader.read_weights(layer, [unit])[:, 0]
    for side in both:
        rows = [inputs[int(number), side.sign] for number in side.chosen]
        claims.measures(side, np.array(rows).reshape(len(rows), read_weights.shape[1]), read_weights)


def _held_out(reader: Reader, text: Text, chosen: dict[int, list[int]]) -> dict[int, dict[int, NDArray[np.float32]]]:
    """What units do in the contexts that predictions are tried on: (tokens, units) by context and layer."""
    numbers = range(HELD_OUT_EVERY - 1, len(text), HELD_OUT_EVERY)
    return {
        number: {layer: seen[layer][1][row][:, units].numpy() for layer, units in chosen.items()}
        for batch, seen in reader.run(text, numbers, list(chosen))
        for row, number in enumerate(batch)
    }


def _check_held(reader: Reader, text: Text, claims: Claims, side: ClaimedSide, layer: int, unit: int) -> None:
    """Hold the unit at its maximum on its strongest examples, up to their key tokens."""
    strongest = side.chosen[np.lexsort([side.chosen, -side.keys[side.chosen]])][:EXAMPLES_CLAMPED].tolist()
    rows = [text.contexts[number][2][: int(side.at[number]) + 1] for number in strongest]
    change = reader.next_token_held(rows, layer, unit, float(side.keys.max()))
    claims.steering(None if change is None else change.numpy())
