"""Verification: some units of a published atlas, read again from the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.memory import keep_memory
from atlas_builder.progress import Progress
from atlas_builder.store import read_json
from atlas_builder.verify.claims import Claims, Report, Side, sides
from atlas_builder.verify.reading import Reader, Text, courses
from atlas_builder.verify.source import find


def verify(
    site: Path,
    *,
    units: int = 8,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Report:
    """Run the model again and compare what the records of some random units claim.

    Statistics are taken over the whole corpus once more; examples are chosen anew, and
    their text, activations, bands, neuron embeddings (by their distances) and measures
    compared. The model is read by transformers alone. `overrides` are `KEY=VALUE`, for
    a model or corpus that lies elsewhere than when the atlas was built. Raises
    `SiteError` where `site` is no atlas, `ConfigurationError` where model or corpus are
    not to be found.
    """
    progress = progress or Progress(quiet=True)
    keep_memory()
    source = find(site, overrides)
    _, config, reader, text = source
    report = Report()
    chosen = source.draw(units, seed)
    with progress.task("read", total=text.tokens, unit="tokens") as advance:
        found = courses(reader, text, chosen, advance)
    with progress.task("compare", total=sum(map(len, chosen.values())), unit="units") as advance:
        for layer, numbers in chosen.items():
            for place, unit in enumerate(numbers):
                record = read_json(site / f"L{layer}" / f"N{unit}.json")
                claims = Claims(record, report, config, text, reader.token_texts)
                both = list(sides(found[layer], place, layer, unit, reader.signed[layer], config))
                claims.statistics(found[layer], place)
                claims.bands(found[layer], place)
                _check_examples(reader, text, claims, both, layer, unit)
                advance(1)
    return report


def _check_examples(reader: Reader, text: Text, claims: Claims, both: list[Side], layer: int, unit: int) -> None:
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
