"""The end of the pass over a layer: selects examples and writes all that later stages need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect import bands, own, selection, statistics
from atlas_builder.collect.background import Background
from atlas_builder.collect.candidates import Candidates, take
from atlas_builder.collect.histogram import counts_above
from atlas_builder.collect.layer import LayerCollector, token_numbers
from atlas_builder.collect.results import band_type, draw_type, example_type, selection_type
from atlas_builder.collect.vector_log import RowLog
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.files import write_json


def finish(collector: LayerCollector, contexts: Contexts, folder: Path) -> None:
    """Write the results of a layer over `contexts` to `folder`.

    The order of rows does not depend on the order of the pass: examples are by unit, sign
    and descending activation, inputs by position in the corpus, the background by chance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape, tally = collector.shape, collector.tally
    selected = chosen_examples(collector)
    chosen = selected.examples
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
    np.save(folder / "selection.npy", _selection(collector, selected).reshape(shape.units, shape.signs))

    np.save(folder / "histogram.npy", tally.histogram)
    np.save(folder / "moments.npy", np.stack(statistics.moments(tally)))
    edges = _write_own(collector, folder) if collector.own is not None else None
    if edges is None:
        edges = _edges(collector)
    np.save(folder / "band_edges.npy", edges)
    drawn = bands.draw_bands(collector.draw, collector.band_candidates, edges)
    np.save(folder / "bands.npy", _bands(drawn))
    np.save(folder / "band_windows.npy", _windows(collector.band_windows, _shown(collector, drawn)))
    if shape.draws:
        np.save(folder / "draws.npy", _draws(bands.in_random_order(collector.wide_draw, collector.wide_candidates)))
    _write_background(collector.background, contexts, folder)
    facts = {"tokens": int(tally.tokens[0]), "units": shape.units, "width": shape.width, "signs": shape.signs}
    write_json(folder / "layer.json", facts)


def chosen_examples(collector: LayerCollector) -> selection.SelectedExamples:
    """The examples of a layer, as far as its contexts are known."""
    return selection.select(collector.rule, collector.top_candidates)


def shown_tokens(collector: LayerCollector) -> Candidates:
    """The tokens of bands whose windows are shown, as far as contexts are known; not for output neurons."""
    return _shown(collector, bands.draw_bands(collector.draw, collector.band_candidates, _edges(collector)))


def _edges(collector: LayerCollector) -> NDArray[np.float64]:
    return bands.band_edges(collector.tally.histogram, collector.tally.maximum, collector.examples.bands)


def _shown(collector: LayerCollector, drawn: bands.DrawnTokens) -> Candidates:
    return take(drawn.candidates, drawn.rank < collector.examples.per_band)


def _selection(collector: LayerCollector, selected: selection.SelectedExamples) -> np.ndarray:
    """The `Selection` of each column."""
    settings, peaks = collector.examples, collector.tally.peaks
    found = np.zeros(len(peaks), selection_type)
    found["robust"] = selected.robust
    if settings.policy == "top":
        found["reach"] = peaks.sum(axis=1, dtype=np.int64)
        found["filled"] = found["reach"] > settings.per_unit
    else:
        about = np.rint(counts_above(peaks, collector.rule.share * selected.robust)).astype(np.int64)
        all_known = selected.qualify < settings.per_unit
        found["reach"] = np.where(all_known, selected.qualify, np.maximum(about, selected.qualify))
        found["filled"] = np.bincount(selected.examples.column, minlength=len(peaks)) > found["reach"]
    return found


def _write_background(background: Background, contexts: Contexts, folder: Path) -> None:
    np.save(folder / "background.npy", background.inputs)
    tokens = contexts.tokens[contexts.starts[background.context] + background.position]
    np.save(folder / "background_tokens.npy", np.asarray(tokens))


def _write_own(collector: LayerCollector, folder: Path) -> NDArray[np.float64]:
    """Write the own positions of output neurons and those drawn from their bands; returns the bands' edges."""
    assert collector.own is not None
    maximum = collector.tally.maximum.astype(np.float64)
    positions = collector.own.write(collector.shape.units, folder / "own.npy")
    edges = own.own_edges(positions, maximum, collector.examples.own_bands)
    drawn, rows = own.own_bands(collector.own.sample, edges, collector.draw.keep)
    np.save(folder / "own_bands.npy", drawn)
    parts = list(collector.own.windows.parts(rows[drawn["rank"] < collector.examples.per_band]))
    empty = np.zeros((0, collector.own.windows.width), np.float32)
    np.save(folder / "own_band_windows.npy", np.concatenate([empty, *parts]))
    return edges


def _draws(tokens: Candidates) -> np.ndarray:
    rows = np.empty(len(tokens.column), draw_type)
    rows["unit"], rows["value"] = tokens.column, tokens.value
    rows["context"], rows["position"] = tokens.context, tokens.position
    return rows


def _bands(drawn: bands.DrawnTokens) -> np.ndarray:
    rows = np.empty(len(drawn.band), band_type)
    for name in ("value", "context", "position"):
        rows[name] = getattr(drawn.candidates, name)
    rows["unit"], rows["band"], rows["rank"] = drawn.candidates.column, drawn.band, drawn.rank
    return rows


def _windows(log: RowLog, chosen: Candidates) -> NDArray[np.float32]:
    parts = list(log.parts(chosen.row.astype(np.int64)))
    return np.concatenate(parts) if parts else np.zeros((0, log.width), np.float32)


def _write_inputs(collector: LayerCollector, tokens: NDArray[np.int64], path: Path) -> None:
    order = np.argsort(collector.input_tokens)
    numbers = order[np.searchsorted(collector.input_tokens, tokens, sorter=order)]
    with path.open("wb") as out:
        for part in collector.inputs.parts(numbers):
            out.write(part.tobytes())
