"""Verification of some units of a published atlas by a second run of the model."""

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
from atlas_builder.verify.background import Unrelated, background_places
from atlas_builder.verify.claims import ClaimedSide, Claims, sides
from atlas_builder.verify.report import VerificationReport


def verify(
    site: Path,
    *,
    units: int = 8,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> VerificationReport:
    """Run the model again and compare what the records of some random units claim.

    Statistics are computed over the whole corpus again, examples and the layer's background
    are chosen again, and examples are clustered again; their text, activations, bands, neuron
    embeddings (by their distances), behaviours, measures, token look-up, and steering are
    compared. The model is run by transformers alone, and nothing of the cluster stage is used.
    `overrides`
    are `KEY=VALUE`, for a model or corpus that was moved since the atlas was built. Raises
    what `open_rerun` does.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    source = open_rerun(site, overrides)
    _, config, reader, text = source
    report = VerificationReport()
    chosen = source.draw(units, seed)
    lengths = [len(tokens) for _, _, tokens in text.contexts]
    places = {layer: background_places(lengths, config.examples.seed, layer) for layer in chosen}
    with progress.task("read", total=text.tokens, unit="tokens") as advance:
        traces = trace_units(reader, text, chosen, advance, places)
    held_out = _held_out(reader, text, chosen) if config.describe.prediction else {}
    with progress.task("compare", total=sum(map(len, chosen.values())), unit="units") as advance:
        for layer, numbers in chosen.items():
            ids = np.array([text.contexts[context][2][position] for context, position in places[layer]], np.int64)
            for place, unit in enumerate(numbers):
                record = read_json(site / UnitAddress(layer, unit).record)
                claims = Claims(record, report, config, text, reader.token_texts)
                unit_sides = list(sides(traces[layer], place, layer, unit, reader.has_negative[layer], config))
                claims.statistics(traces[layer], place)
                claims.bands(traces[layer], place)
                _check_examples(reader, text, claims, unit_sides, (traces[layer].sampled, ids))
                if record.get("prediction") and not unit_sides[0].unsure:
                    claims.look_up(
                        unit_sides[0],
                        {number: activations[layer][:, place] for number, activations in held_out.items()},
                    )
                if record.get("steering") and not unit_sides[0].unsure:
                    _check_clamped(reader, text, claims, unit_sides[0], layer, unit)
                advance(1)
    return report


def _check_examples(
    reader: Reader,
    text: Text,
    claims: Claims,
    unit_sides: list[ClaimedSide],
    sampled: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    """Run the contexts of the unit's examples again; `sampled` are inputs at random tokens, and the tokens' ids."""
    layer, unit = int(claims.record["layer"]), int(claims.record["unit"])
    contexts = claims.contexts().union(*(side.chosen.tolist() for side in unit_sides))
    activations: dict[tuple[int, int], NDArray[np.float32]] = {}
    inputs: dict[tuple[int, int], NDArray[np.float32]] = {}
    for batch, seen in reader.run(text, sorted(contexts), [layer]):
        inputs_of_batch, activations_of_batch = seen[layer]
        for row, number in enumerate(batch):
            activations[number, unit] = activations_of_batch[row, :, unit].numpy().copy()
            for side in unit_sides:
                inputs[number, side.sign] = inputs_of_batch[row, int(side.at[number])].numpy().copy()
    claims.examples(unit_sides, activations)
    read_weights = reader.read_weights(layer, [unit])[:, 0]
    unrelated = Unrelated(*sampled, read_weights)
    for side in unit_sides:
        rows = [inputs[int(number), side.sign] for number in side.chosen]
        claims.measures(side, np.array(rows).reshape(len(rows), read_weights.shape[1]), read_weights, unrelated)


def _held_out(reader: Reader, text: Text, chosen: dict[int, list[int]]) -> dict[int, dict[int, NDArray[np.float32]]]:
    """Activations of units in the held-out contexts: (tokens, units) by context and layer."""
    numbers = range(HELD_OUT_EVERY - 1, len(text), HELD_OUT_EVERY)
    return {
        number: {layer: seen[layer][1][row][:, units].numpy() for layer, units in chosen.items()}
        for batch, seen in reader.run(text, numbers, list(chosen))
        for row, number in enumerate(batch)
    }


def _check_clamped(reader: Reader, text: Text, claims: Claims, side: ClaimedSide, layer: int, unit: int) -> None:
    """Clamp the unit to its maximum on its strongest examples, up to their key tokens."""
    strongest = side.chosen[np.lexsort([side.chosen, -side.keys[side.chosen]])][:EXAMPLES_CLAMPED].tolist()
    rows = [text.contexts[number][2][: int(side.at[number]) + 1] for number in strongest]
    change = reader.clamp_effect(rows, layer, unit, float(side.keys.max()))
    claims.steering(None if change is None else change.numpy())
