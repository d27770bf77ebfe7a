"""The end of the pass over a layer: examples chosen, and all that later stages need written in one order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect import bands, selection, statistics
from atlas_builder.collect.candidates import Candidates, take
from atlas_builder.collect.layer import LayerCollector, token_numbers
from atlas_builder.collect.results import band_type, example_type
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.files import write_json


def finish(collector: LayerCollector, folder: Path) -> None:
    """Write the results of a layer to `folder`.

    Everything lies in an order of its own, whatever order it was met in: examples by
    unit, side and falling activation, inputs by place in the corpus.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape, counted = collector.shape, collector.tally
    chosen = selection.select(collector.rule, collector.top_candidates)
    tokens, row = np.unique(token_numbers(chosen), return_inverse=True)
    _write_inputs(collector, tokens, folder / "inputs.f32")
    unit, side = np.divmod(chosen.column, shape.signs)
    examples = np.empty(len(unit), example_type(collector.windows.width))
    examples["unit"], examples["sign"] = unit, 1 - 2 * side
    examples["value"] = chosen.value * examples["sign"]
    examples["context"], examples["position"], examples["row"] = chosen.context, chosen.position, row
    examples["window"] = _windows(collector.windows, chosen)
    np.save(folder / "examples.npy", examples)
    np.save(folder / "starts.npy", np.searchsorted(unit, np.arange(shape.units + 1)))

    np.save(folder / "histogram.npy", counted.histogram)
    np.save(folder / "moments.npy", np.stack(statistics.moments(counted)))
    edges = bands.band_edges(counted.histogram, counted.maximum, collector.examples.bands)
    np.save(folder / "band_edges.npy", edges)
    drawn = bands.draw_bands(collector.draw, collector.band_candidates, edges)
    np.save(folder / "bands.npy", _bands(drawn))
    shown = take(drawn.candidates, drawn.rank < collector.examples.per_band)
    np.save(folder / "band_windows.npy", _windows(collector.band_windows, shown))
    facts = {"tokens": int(counted.tokens[0]), "units": shape.units, "width": shape.width, "signs": shape.signs}
    write_json(folder / "layer.json", facts)


def _bands(drawn: bands.DrawnTokens) -> np.ndarray:
    found = np.empty(len(drawn.band), band_type)
    for name in ("value", "context", "position"):
        found[name] = getattr(drawn.candidates, name)
    found["unit"], found["band"], found["rank"] = drawn.candidates.column, drawn.band, drawn.rank
    return found


def _windows(log: RowLog, found: Candidates) -> NDArray[np.float32]:
    parts = list(log.parts(found.row.astype(np.int64)))
    return np.concatenate(parts) if parts else np.zeros((0, log.width), np.float32)


def _write_inputs(collector: LayerCollector, tokens: NDArray[np.int64], path: Path) -> None:
    order = np.argsort(collector.input_tokens)
    numbers = order[np.searchsorted(collector.input_tokens, tokens, sorter=order)]
    with path.open("wb") as out:
        for part in collector.inputs.parts(numbers):
            out.write(part.tobytes())
