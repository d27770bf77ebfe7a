"""Records: whether each is of its file, is as the schema demands, and agrees with itself."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from atlas_builder.describe.novelty import SIGNIFICANT
from atlas_builder.reader.facts import counted_tokens
from atlas_builder.records.address import UnitAddress
from atlas_builder.records.schema import Record, content_hash, serialise
from atlas_builder.records.validation import schema_problem
from atlas_builder.rounding import first_rank, grain_of, grain_of_bands
from atlas_builder.site.hosting.checks.associations import association_problems
from atlas_builder.site.hosting.checks.measures import CLOSE, measure_problems, near


def record_problem(record: Any, content: bytes, address: UnitAddress, facts: Mapping[str, Any]) -> str | None:
    """The first problem of a unit's record, given its file's bytes; None where all is well."""
    if problem := schema_problem(record):
        return problem
    if record["hash"] != content_hash(record):
        return "its hash is not that of its content"
    if content != serialise(record):
        return "it is not written as the builder writes it"
    return next(_disagreements(record, address, facts), None)


def _disagreements(record: Record, address: UnitAddress, facts: Mapping[str, Any]) -> Iterator[str]:
    """What the schema cannot express: whose record it is, valid indices, sums and bounds that agree."""
    yield from _address(record, address, facts)
    yield from _examples(record, facts)
    yield from _behaviours(record)
    yield from _statistics(record, facts)
    yield from measure_problems(record)
    yield from _bands(record, facts)
    yield from _effects(record)
    yield from association_problems(record, facts)


def _address(record: Record, address: UnitAddress, facts: Mapping[str, Any]) -> Iterator[str]:
    atlas = facts["atlas"]
    expected = {
        "id": address.within(atlas["id"]),
        "atlas": {"id": atlas["id"], "version": atlas["version"]},
        "layer": address.layer,
        "unit": address.unit,
        "kind": facts["kind"],
    }
    tokens = facts.get("output_tokens")
    if tokens is not None:
        expected["token"] = tokens[address.unit]
    elif "token" in record:
        yield "it names a token, but its atlas is not of output neurons"
    for name, value in expected.items():
        if record.get(name) != value:
            yield f"its {name} is {record.get(name)!r}, but its place in the atlas gives {value!r}"


def _examples(record: Record, facts: Mapping[str, Any]) -> Iterator[str]:
    """Every example is whole, in one list of a behaviour or band at most, and within the unit's range."""
    examples, stats = record["examples"], record["stats"]
    listed = Counter(place for part in (*record["behaviours"], *record["bands"]) for place in part["examples"])
    if any(place >= len(examples) for place in listed):
        yield "it lists an example that is not there"
        return
    if any(count > 1 for count in listed.values()):
        yield "it lists an example twice"
    own = {place: behaviour["id"] for behaviour in record["behaviours"] for place in behaviour["examples"]}
    in_bands = {place for band in record["bands"] for place in band["examples"]}
    grains = (grain_of(stats["max"]), grain_of(-stats["min"]))
    of_bands = grain_of_bands(stats["max"], stats["min"])
    coarse = max(grains)  # whatever its sign, an activation is rounded as its example's key token is
    low, high = stats["min"] - coarse - _slack(stats["min"]), stats["max"] + coarse + _slack(stats["max"])
    positive = [_at_key(example) >= 0 or record["negative"] is None for example in examples]
    grain_of_each = [
        of_bands if place in in_bands else grains[0] if is_positive else grains[1]
        for place, is_positive in enumerate(positive)
    ]
    on_grain = _on_grain([example["values"] for example in examples], grain_of_each)
    importance = [[each for each in example.get("importance", ()) if each is not None] for example in examples]
    on_hundredths = _on_grain(importance, [0.01] * len(examples))
    for place, example in enumerate(examples):
        values, key = example["values"], example["key"]
        if len(example["tokens"]) != len(values) or key >= len(values):
            yield "an example's tokens, values and key do not match"
            return
        special = example.get("special", ())
        yield from _roles(place, example, facts)
        counted = [value for at, value in enumerate(values) if at not in special] if special else values
        if not low <= min(counted, default=low) <= max(counted, default=low) <= high:
            yield f"example {place} has an activation beyond the unit's minimum and maximum"
        if not on_grain[place]:
            yield f"example {place} has an activation that is not rounded as the others are"
        if example["behaviour"] != own.get(place):
            yield "an example names another behaviour than the one that lists it"
        if place in in_bands and ("source" in example or "importance" in example):
            yield f"example {place} of a band has what only examples of behaviours have"
        if place not in in_bands and "source" not in example:
            yield f"example {place} names no source"
        if example["position"] < key:
            yield f"example {place} begins before its document"
        if "importance" in example and (len(example["importance"]) != key + 1 or not on_hundredths[place]):
            yield f"the token importance of example {place} is not that of the tokens up to its key token"


def _roles(place: int, example: Record, facts: Mapping[str, Any]) -> Iterator[str]:
    """The role of an example of a conversation is one of the atlas's, and its key token is in a message."""
    roles = facts["corpus"].get("chat", {}).get("roles", ())
    if (example.get("role") in roles) != bool(roles) or ("role" in example) != bool(roles):
        yield f"the role of example {place} is none of the atlas's"
    special = example.get("special", [])
    if special != sorted(set(special)) or not all(
        at < len(example["tokens"]) and at != example["key"] for at in special
    ):
        yield f"the chat template's own tokens of example {place} are not places beside its key token"


def _at_key(example: Record) -> float:
    values, key = example["values"], example["key"]
    return float(values[key]) if key < len(values) else 0.0  # which is said of it


def _on_grain(rows: Sequence[Sequence[float]], grains: Sequence[float]) -> list[bool]:
    """Of each row, whether its values are whole multiples of its power of ten; all rows at once."""
    lengths = [len(row) for row in rows]
    steps = np.fromiter(itertools.chain.from_iterable(rows), np.float64, sum(lengths)) / np.repeat(grains, lengths)
    off = np.abs(steps - np.rint(steps)) > 1e-6 * np.maximum(1, np.abs(steps))
    before = np.concatenate([[0], np.cumsum(off)])[np.cumsum([0, *lengths])]
    fits: list[bool] = (before[1:] == before[:-1]).tolist()
    return fits


def _slack(value: float) -> float:
    return CLOSE * abs(value)


def _behaviours(record: Record) -> Iterator[str]:
    behaviours, examples = record["behaviours"], record["examples"]
    if [behaviour["id"] for behaviour in behaviours] != list(range(1, len(behaviours) + 1)):
        yield "its behaviours are not numbered from 1"
    order = [(-behaviour["sign"], -behaviour["size"]) for behaviour in behaviours]
    if order != sorted(order):
        yield "its behaviours are not in order of sign and size"
    for behaviour in behaviours:
        name = f"behaviour {behaviour['id']}"
        if behaviour["central"] not in behaviour["examples"]:
            yield f"the central example of {name} is not one of its own"
        if len(behaviour["examples"]) > behaviour["size"]:
            yield f"{name} shows more examples than it has"
        for place in behaviour["examples"]:
            if examples[place]["behaviour"] != behaviour["id"]:
                yield f"{name} lists an example of another behaviour"
            elif examples[place]["values"][examples[place]["key"]] * behaviour["sign"] < 0:
                yield f"{name} has an example of the other sign"
        if not (_falling(behaviour["tokens"], 1) and _falling(behaviour["next"], 1)):
            yield f"the tokens of {name} are not shares in falling order"
        if not _are_shares([share for _, share in behaviour["next"]], behaviour["size"]):
            yield f"the next tokens of {name} are no shares of its examples"
        near = behaviour["neighbours"]
        if any(one["similarity"] < other["similarity"] for one, other in itertools.pairwise(near)):
            yield f"the neighbours of {name} are not in order"
        for one in near:
            if (one["wiring"] is None) != (one["id"].rpartition("/")[0] == record["id"].rpartition("/")[0]):
                yield f"a neighbour of {name} has a weight cosine within its layer, or none across layers"


def _are_shares(shares: Sequence[float], most: int, least: int = 1) -> bool:
    """Whether shares may be of some number of things, from `least` to `most`."""
    return not shares or any(
        all(abs(share * number - round(share * number)) <= CLOSE * share * number for share in shares)
        for number in range(most, least - 1, -1)
    )


def _falling(pairs: Sequence[Sequence[Any]], most: float) -> bool:
    """Whether weights of tokens fall from at most `most` to zero."""
    weights = [most, *(weight for _, weight in pairs), 0]
    return all(one >= other for one, other in itertools.pairwise(weights))


_OUTERMOST = (1 - CLOSE) * 2.0**16
"""The last edge of a histogram, which is rounded."""


def _statistics(record: Record, facts: Mapping[str, Any]) -> Iterator[str]:
    """The statistics agree with the histogram, whose bins bound them."""
    stats, counts = record["stats"], record["stats"]["histogram"]["counts"]
    edges = np.array(stats["histogram"]["edges"], dtype=np.float64)
    if stats["tokens"] != (counted := counted_tokens(facts)):
        yield f"it counts {stats['tokens']:,} tokens, but the atlas {counted:,}"
    if sum(counts) != stats["tokens"]:
        yield "the histogram does not count every token"
        return
    if len(edges) != len(counts) + bool(counts) or np.any(np.diff(edges) <= 0):
        yield "the histogram's edges do not rise, or are not one more than its counts"
        return
    if not counts:
        return
    if -edges[0] >= _OUTERMOST:  # an outermost bin has what is farther out as well
        edges[0] = min(edges[0], stats["min"])
    if edges[-1] >= _OUTERMOST:
        edges[-1] = max(edges[-1], stats["max"])
    slack = 2 * CLOSE * max(abs(edges[0]), abs(edges[-1]))
    if not (counts[0] and counts[-1]):
        yield "the histogram has an empty bin at an end"
    if not (
        edges[0] - slack <= stats["min"] <= edges[1] + slack and edges[-2] - slack <= stats["max"] <= edges[-1] + slack
    ):
        yield "its minimum and maximum are not in the histogram's first and last bin"
    share = np.array(counts) / stats["tokens"]
    if not edges[:-1] @ share - slack <= stats["mean"] <= edges[1:] @ share + slack:
        yield "its mean is not one of its histogram"
    squares = np.sort(edges**2)
    ends = np.stack([edges[:-1], edges[1:]]) ** 2
    least = np.where(edges[:-1] * edges[1:] < 0, 0, ends.min(axis=0)) @ share
    if (
        not least - squares[-1] * CLOSE
        <= stats["std"] ** 2 + stats["mean"] ** 2
        <= ends.max(axis=0) @ share + squares[-1] * CLOSE
    ):
        yield "its standard deviation is not one of its histogram"
    certain, possible = share[edges[:-1] >= 0].sum(), share[edges[1:] > 0].sum()
    if not certain - CLOSE * (certain + CLOSE) <= stats["density"] <= possible * (1 + CLOSE) + 1e-9:
        yield "its density is not one of its histogram"


def _bands(record: Record, facts: Mapping[str, Any]) -> Iterator[str]:
    """The bands of each side are those of the settings, in order, and say whether the middle differs."""
    bands, examples = record["bands"], facts["configuration"]["examples"]
    sides = _sides(bands)
    found = [(side, [band["quantiles"] for band in own]) for side, own in sides.items()]
    in_order = [band for own in sides.values() for band in own]
    if bands and (found != _quantiles(facts["kind"], examples) or bands != in_order):
        yield "the sides or quantiles of its bands are not those of the settings"
        return
    grain = grain_of_bands(record["stats"]["max"], record["stats"]["min"])
    for own in sides.values():
        yield from _side(record, own, grain, ends_at_maximum=own[-1]["quantiles"][1] == 1)
    if "own" in sides:
        yield from _positions(record, sides, int(facts["corpus"]["documents"]))
    middle = sides["own"][:-1] if "own" in sides else bands[1:-1]
    if record["middle_differs"] != any(band["p"] is not None and band["p"] < SIGNIFICANT for band in middle):
        yield "whether its middle differs is not what its bands say"


def _sides(bands: Sequence[Record]) -> dict[str | None, list[Record]]:
    """Bands by their side, which is None but for output neurons."""
    return {side: [band for band in bands if band.get("side") == side] for side in (band.get("side") for band in bands)}


def _quantiles(kind: str, examples: Mapping[str, Any]) -> list[tuple[str | None, list[list[float | None]]]]:
    """The sides of a kind of units and the quantiles of the bands of each."""
    if kind != "logits":
        return [(None, [list(pair) for pair in itertools.pairwise(examples["bands"])])]
    every: list[list[float | None]] = [list(pair) for pair in itertools.pairwise([None, *examples["own_bands"]])]
    return [("own", every[1:]), ("others", every)]


def _side(record: Record, bands: Sequence[Record], grain: float, *, ends_at_maximum: bool) -> Iterator[str]:
    """The bands of one side follow each other, and have the examples that they list."""
    for band, after in itertools.pairwise(bands):
        if band["range"][1] != after["range"][0]:
            yield "a band does not begin where the one before ends"
    for band in bands:
        low, high = band["range"]
        if low > high:
            yield "the range of a band is not in order"
        for place in band["examples"]:
            example = record["examples"][place]
            if not low - grain - _slack(low) <= example["values"][example["key"]] <= high + grain + _slack(high):
                yield "an example of a band is outside of its range"
        if len(band["examples"]) > band["drawn"]:
            yield "a band shows more examples than were drawn from it"
        if band["novelty"] is not None and not _are_shares([band["novelty"]], band["drawn"], least=band["drawn"]):
            yield "the novelty of a band is no share of the tokens drawn from it"
    if ends_at_maximum and not near(bands[-1]["range"][1], record["stats"]["max"]):
        yield "the highest band does not end with its maximum"


_ESTIMATED = 0.06
"""Numbers of other positions are estimates of two digits."""


def _positions(record: Record, sides: Mapping[str | None, Sequence[Record]], ends: int) -> Iterator[str]:
    """Both sides have the same ranges; own positions go by their quantiles, and all make up the tokens.

    But for the `ends` of documents, where no token comes next: they may be among the others that are estimated.
    """
    own, others = sides["own"], sides["others"]
    if [band["range"] for band in own] != [band["range"] for band in others[1:]]:
        yield "its bands of the two sides have other ranges"
    if not near(others[0]["range"][0], record["stats"]["min"]):
        yield "the band below its own positions does not begin with its minimum"
    if any("positions" not in band or band["positions"] < band["drawn"] for band in (*own, *others)):
        yield "a band has fewer positions than were drawn from it"
        return
    n = sum(band["positions"] for band in own)
    if own[0]["quantiles"][0] != 0 or own[-1]["quantiles"][1] != 1:
        return
    for band, below in zip(own, itertools.accumulate((band["positions"] for band in own), initial=0), strict=False):
        if below > first_rank(band["quantiles"][0], n):  # fewer, where activations are equal
            yield "its own positions are not as many as the quantiles of its bands say"
    every = n + sum(band["positions"] for band in others)
    drawn = sum(band["drawn"] for band in others)
    if (
        not (1 - _ESTIMATED) * (record["stats"]["tokens"] - ends)
        <= every
        <= (1 + _ESTIMATED) * record["stats"]["tokens"] + drawn
    ):
        yield "its bands have more or fewer positions than there are tokens"


def chance_problems(records: Mapping[str, Record]) -> Iterator[str]:
    """Records, by name, whose bands have another p-value than their numbers of tokens give."""
    rows = []
    for name, record in records.items():
        for *below, top in _sides(record["bands"]).values():
            if not top["drawn"] or top["novelty"] is None:
                continue
            lone = round(top["novelty"] * top["drawn"])
            rows += [
                (name, band["p"], band["drawn"], round(band["novelty"] * band["drawn"]), top["drawn"], lone)
                for band in below
                if band["drawn"] and band["novelty"] is not None
            ]
    if not rows:
        return
    names, said, drawn, fresh, of_top, lone_ = zip(*rows, strict=True)
    drawn_, fresh_ = np.array(drawn), np.array(fresh)
    found = hypergeom.sf(fresh_ - 1, drawn_ + np.array(of_top), fresh_ + np.array(lone_), drawn_)
    for name, p, expected in zip(names, said, found.tolist(), strict=True):
        if not near(p, expected) and abs((p or 0) - expected) > 1e-12:
            yield f"{name}: the p-value of a band is not that of its numbers of tokens"


def _effects(record: Record) -> Iterator[str]:
    """Logit effects and steering from the strongest on, scores of predictors that fit each other."""
    logits, prediction, steering = record["logits"], record.get("prediction"), record.get("steering")
    values = [[value for _, value in logits[side]] for side in ("positive", "negative")]
    if values[0] != sorted(values[0], reverse=True) or values[1] != sorted(values[1]):
        yield "its logit effects are not in order"
    if values[0] and values[1] and values[1][0] > values[0][0]:
        yield "the tokens that it suppresses are promoted more than those that it promotes"
    if prediction is not None:
        if prediction["fired"] > record["stats"]["tokens"]:
            yield "it fires on more held-out tokens than there are"
        for way in ("lookup", "context", "graph"):
            if way not in prediction:
                continue
            precision, recall, f1 = (prediction[way][name] for name in ("precision", "recall", "f1"))
            if precision and recall and not near(f1, 2 * precision * recall / (precision + recall)):
                yield f"the F1 of its {way} is not that of precision and recall"
    if steering is not None:
        if steering["value"] != record["stats"]["max"]:
            yield "it is clamped to another value than its maximum"
        more, less = ([by for _, by in steering[side]] for side in ("more", "less"))
        if (
            more != sorted(more, reverse=True)
            or less != sorted(less)
            or min(more, default=0) < 0 < max(less, default=0)
        ):
            yield "its changes by steering are not in order"
