"""Whether two halves of a text tell the same of a neuron: `python -m tests.benchmarks.halves MODEL TEXT.jsonl`.

The documents of a text, dealt out in turn, make two halves that share none. Each is collected with the
package's own pass, the highest contexts of every neuron of some layers, and random neurons are clustered
in both by each rule for examples and each method. The table compares the halves:

- number: main behaviours, mean and standard deviation over neurons; all: behaviours of any size;
- unclustered: share of examples in no behaviour;
- Spearman: of the number of main behaviours (of all; of the effective number) between halves;
- matched: share of behaviours with a tenth of the examples or more that have a behaviour in the other half with
  ρ ≥ 0.55, by centred neuron embeddings; other neuron: the same with another neuron's examples in the other half;
- ARI: examples of one half given to the behaviours of the other, by the largest mean cosine, against their own
  clustering (adjusted Rand index), neurons with one behaviour in both halves left out;
- strength: prediction strength (Tibshirani & Walther 2005), the worst behaviour of five examples or more; it and ARI
  are of behaviours of any size (of main ones alone, others unclustered);
- inside: share of neurons whose number in one half is within the interval of the other, and its median width.

`--tokens` sets the size of a half, `--keep` a folder in which the passes are kept for the next run, `--device` where
the model runs; clustering uses all cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy, spearmanr
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from atlas_builder.cluster.background import LayerBackground
from atlas_builder.cluster.clustering import cluster, is_main, main_behaviours, similarities_of
from atlas_builder.cluster.embeddings import neuron_embeddings
from atlas_builder.cluster.stability import half_samples, main_interval
from atlas_builder.collect.results import Collected, CollectedLayer
from atlas_builder.config import ClusterSettings
from atlas_builder.config_file import validate
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.workspace import work_folder

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Rule = Callable[[Floats], NDArray[np.int64]]

MOST = 1000
"""Highest contexts collected of a neuron."""
METHODS = {
    "linkage": ClusterSettings(method="linkage"),
    "average linkage": ClusterSettings(method="agglomerative"),
    "HDBSCAN": ClusterSettings(method="hdbscan"),
    "components": ClusterSettings(method="components"),
}


def threshold(values: Floats, share: float = 0.75) -> NDArray[np.int64]:
    """Contexts that reach a share of the maximum, at most a hundred of them at random."""
    chance = np.random.default_rng(len(values))
    return np.sort(chance.permutation(np.flatnonzero(values >= share * values.max(initial=0)))[:100])


def top(count: int) -> Rule:
    """The highest contexts."""
    return lambda values: np.arange(min(count, len(values)))


def robust(share: float, least: int) -> Rule:
    """A hundred at random of those that reach a share of the mean of the ten highest; or the highest `least`."""

    def rule(values: Floats) -> NDArray[np.int64]:
        mean = values[:10].sum() / 10
        reached = int((values >= share * mean).sum())
        if reached < least:
            return np.arange(min(least, int((values >= 0.2 * mean).sum()) or 1, len(values)))
        return np.sort(np.random.default_rng(reached).permutation(reached)[:100])

    return rule


RULES: dict[str, Rule] = {
    "0.75 × maximum": threshold,
    "highest 50": top(50),
    "highest 100": top(100),
    "0.5 × mean of ten, 100": robust(0.5, 100),
}


@dataclass(frozen=True)
class Read:
    """A neuron's examples in one half, clustered."""

    directions: Floats
    """Centred neuron embeddings of length one: (examples, parts · width)."""
    labels: Labels
    interval: tuple[float, float]

    @property
    def number(self) -> int:
        """Main behaviours."""
        return main_behaviours(self.labels)

    @property
    def effective(self) -> float:
        """Effective number of behaviours."""
        sizes = np.bincount(self.labels[self.labels >= 0])
        return float(np.exp(entropy(sizes))) if len(sizes) else 0.0

    @property
    def main(self) -> Read:
        """The same with main behaviours alone."""
        large = is_main(np.bincount(self.labels[self.labels >= 0]), len(self.labels))
        kept = (self.labels >= 0) & np.append(large, False)[self.labels]
        return Read(self.directions, np.where(kept, self.labels, -1), self.interval)

    @property
    def parts(self) -> list[Floats]:
        """The directions of each behaviour."""
        return [self.directions[self.labels == number] for number in range(self.labels.max(initial=-1) + 1)]


class Half:
    """One layer of one half."""

    def __init__(self, layer: CollectedLayer) -> None:
        self._layer, self.units = layer, layer.units
        self.background = LayerBackground(layer.background, layer.background_tokens)

    def inputs(self, unit: int, rule: Rule) -> Floats:
        """The inputs at a neuron's examples, highest first: (examples, width)."""
        examples = self._layer.of_side(unit, 1)[1]
        return np.asarray(self._layer.inputs[examples["row"][rule(examples["value"])]])

    def read(self, unit: int, rule: Rule, settings: ClusterSettings) -> Read:
        """A neuron's examples, clustered."""
        inputs, read_weights = self.inputs(unit, rule), self._layer.read_weights[:, unit]
        similar = similarities_of(inputs, self.background.of_unit(read_weights), settings)
        labels = cluster(similar.distances, settings, similar.dimensions)
        interval = main_interval(main_behaviours(labels), half_samples(similar, settings))
        return Read(self.directions(inputs, unit), labels, (interval.low, interval.high))

    def directions(self, inputs: Floats, unit: int) -> Floats:
        """Inputs as a neuron reads them, the layer's mean taken off, at length one."""
        embeddings = neuron_embeddings(inputs - self.background.mean, self._layer.read_weights[:, unit])
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        return np.asarray(embeddings / np.maximum(norms, np.float32(1e-12)))


def matched(here: Read, there: Read) -> list[bool]:
    """For each large behaviour of one half, whether the other has it too."""
    others = [(part.mean(axis=0), _within(part)) for part in there.parts]
    found = []
    for part in here.parts:
        if len(part) >= max(2, len(here.labels) / 10):
            centre, own = part.mean(axis=0), _within(part)
            alike = [own > 0 < w and float(centre @ other) / np.sqrt(own * w) >= 0.55 for other, w in others]
            found.append(any(alike))
    return found


def _within(part: Floats) -> float:
    """Mean cosine of pairs; NaN of one example."""
    count, total = len(part), part.sum(axis=0)
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else float("nan")


def agreement(here: Read, there: Read) -> tuple[float | None, float | None]:
    """Adjusted Rand index and prediction strength of the other half's behaviours by those of this one."""
    kept = there.labels >= 0
    if not here.parts or kept.sum() < 5:
        return None, None
    given = np.stack([there.directions @ part.mean(axis=0) for part in here.parts], axis=1).argmax(axis=1)
    several = max(len(here.parts), len(there.parts)) > 1
    rand = float(adjusted_rand_score(there.labels[kept], given[kept])) if several else None
    strengths = []
    for number in range(len(there.parts)):
        owners = given[there.labels == number]
        if len(owners) >= 5:
            counts = np.bincount(owners)
            strengths.append(float((counts * (counts - 1)).sum() / (len(owners) * (len(owners) - 1))))
    return rand, min(strengths, default=None)


def compare(pairs: Sequence[tuple[Read, Read]], others: Sequence[tuple[Read, Read]]) -> list[str]:
    """The cells of a row; `others` pair a neuron with another's examples."""
    numbers = np.array([[half.number for half in pair] for pair in pairs])
    every = np.array([[len(half.parts) for half in pair] for pair in pairs])
    both = [pair for a, b in pairs for pair in ((a, b), (b, a))]
    effective = np.array([[half.effective for half in pair] for pair in pairs])
    agreements = [agreement(*pair) for pair in both]
    of_main = [agreement(here.main, there.main) for here, there in both]
    inside = [here.interval[0] <= there.number <= here.interval[1] for here, there in both]
    widths = [here.interval[1] - here.interval[0] for here, _ in both]
    return [
        f"{np.mean([len(half.labels) for half, _ in both]):.0f}",
        f"{numbers.mean():.1f} ± {numbers.std():.1f}",
        f"{every.mean():.1f}",
        f"{np.mean([(half.labels < 0).mean() for half, _ in both]):.2f}",
        f"{spearmanr(*numbers.T)[0]:.2f} ({spearmanr(*every.T)[0]:.2f}; {spearmanr(*effective.T)[0]:.2f})",
        f"{np.mean([found for pair in both for found in matched(*pair)]):.2f}",
        f"{np.mean([found for pair in others for found in matched(*pair)]):.2f}",
        *(f"{_mean(agreements, place):.2f} ({_mean(of_main, place):.2f})" for place in (0, 1)),
        f"{np.mean(inside):.2f}, {np.median(widths):.0f}",
    ]


def _mean(agreements: Sequence[tuple[float | None, float | None]], place: int) -> float:
    """The mean of one of two measures, where it is known."""
    return float(np.mean([pair[place] for pair in agreements if pair[place] is not None]))


HEAD = ["examples", "method", "n", "number", "all", "unclustered", "Spearman", "matched", "other neuron", "ARI"]


Pairs = list[tuple[Read, Read]]


def main(model: str, text: str, tokens: int, layers: list[int], units: int, keep: str | None, device: str) -> None:
    """Print the table."""
    with _folder(keep) as folder, ProcessPoolExecutor(mp_context=get_context("spawn")) as cores:
        halves = [_collected(model, Path(text), half, tokens, layers, folder, device) for half in (0, 1)]
        rows = {
            (rule, method): [
                cores.submit(read_layer, halves[0].layer(layer), halves[1].layer(layer), units, rule, method)
                for layer in layers
            ]
            for rule in RULES
            for method in METHODS
        }
        head = [*HEAD, "strength", "inside, width"]
        print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
        for (rule, method), tasks in rows.items():
            results = [task.result() for task in tasks]
            pairs, others = ([pair for result in results for pair in result[kind]] for kind in (0, 1))
            print(f"| {rule} | {method} | " + " | ".join(compare(pairs, others)) + " |", flush=True)


def read_layer(
    first: CollectedLayer, second: CollectedLayer, units: int, rule_name: str, method: str
) -> tuple[Pairs, Pairs]:
    """Random neurons of a layer in both halves; and each in one half beside another neuron in the other."""
    rule, settings, one, two = RULES[rule_name], METHODS[method], Half(first), Half(second)
    chosen = np.random.default_rng(first.layer).permutation(one.units)[:units].tolist()
    others = []
    with threadpool_limits(limits=1):
        read = {unit: (one.read(unit, rule, settings), two.read(unit, rule, settings)) for unit in chosen}
        for place, unit in enumerate(chosen):
            other = chosen[(place + 17) % len(chosen)]
            strange = two.directions(two.inputs(other, rule), unit)
            others.append((read[unit][0], Read(strange, read[other][1].labels, (0, 0))))
    return list(read.values()), others


@contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        yield Path(keep)
    else:
        with TemporaryDirectory() as scratch:
            yield Path(scratch)


def _collected(
    model: str, text: Path, half: int, tokens: int, layers: list[int], folder: Path, device: str
) -> Collected:
    """The pass over one half of a text of JSON lines, its documents dealt out in turn."""
    part = folder / f"half-{half}.jsonl"
    lines = text.read_text(encoding="utf-8").splitlines()[half::2]
    part.write_text("\n".join(json.dumps({"text": json.loads(line)["text"]}) for line in lines), encoding="utf-8")
    settings = validate(
        {
            "model": {"name": model, "device": device},
            "corpus": {"source": "jsonl", "path": str(part), "max_tokens": tokens},
            "units": {"layers": layers},
            "examples": {"policy": "top", "per_unit": MOST, "per_band": 0},
        }
    )
    output = folder / f"half-{half}-{tokens}"
    build(settings, output, until="collect", progress=Progress())
    return Collected(work_folder(output.resolve()) / "collect")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="name or folder of a model")
    parser.add_argument("text", help="JSON lines with a key `text`")
    parser.add_argument("--tokens", type=int, default=150_000, help="tokens a half")
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 15, 25])
    parser.add_argument("--units", type=int, default=60, help="neurons a layer")
    parser.add_argument("--keep", help="folder for the passes")
    parser.add_argument("--device", default="cpu", help="where the model runs")
    main(**vars(parser.parse_args()))
