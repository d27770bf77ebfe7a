"""A curated example: a position of the corpus, with its text, as one line of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration
from atlas_builder.corpus.token_text import join_tokens
from atlas_builder.curate.draws import Side
from atlas_builder.records.address import UnitAddress
from atlas_builder.rounding import significant


class Lines:
    """Makes the lines of one choice."""

    def __init__(
        self, config: Configuration, collected: Collected, side: Side, quantiles: tuple[float, float], seed: int
    ) -> None:
        self._config, self._contexts, self._texts = config, collected.contexts, collected.token_texts
        self._tokens: list[int] = collected.facts.get("output_tokens", [])
        self._side, self._quantiles, self._seed = side, quantiles, seed

    def token(self, address: UnitAddress) -> str | None:
        """The text of an output neuron's token; None of other units."""
        return self._texts[self._tokens[address.unit]] if self._tokens else None

    def url(self, address: UnitAddress) -> str:
        """The address of a unit's page, from the atlas's where that is not known."""
        place = self._config.atlas.url
        return f"{place.rstrip('/')}/{address.page}" if place else address.page

    def of(self, address: UnitAddress, rows: np.ndarray, quantile: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
        """The lines of some positions of a unit, `draw_type`."""
        contexts, kept = self._contexts, self._config.examples.window
        places = contexts.windows(rows["context"], rows["position"], *kept).whole(contexts.begins)
        keys = contexts.windows(rows["context"], rows["position"], 0, 0).whole(contexts.begins)
        roles = contexts.role_at(places.key)
        for at, row in enumerate(rows.tolist()):
            _, value, context, position = row
            document = int(contexts.document[context])
            text, span = self._text(*(int(part[at]) for part in (places.first, keys.first, keys.last, places.last)))
            yield {
                "unit": address.within(self._config.atlas.id),
                "token": self.token(address),
                "side": self._side,
                "quantiles": list(self._quantiles),
                "quantile": significant(float(quantile[at])),
                "activation": significant(float(value)),
                "next": self._next(context, position),
                "document": document,
                "source": contexts.names[document],
                "position": int(contexts.offset[context]) + position,
                **({} if roles is None else {"role": roles[at]}),
                "text": text,
                "span": span,
                "attributes": dict(contexts.attributes[document]) if contexts.attributes else {},
                "seed": self._seed,
                "url": self.url(address),
            }

    def _text(self, first: int, key: int, behind: int, last: int) -> tuple[str, list[int]]:
        """The text from the first to before the last token, and where in it the key token's characters are."""
        parts = [
            join_tokens([self._texts[token] for token in self._contexts.tokens[low:high].tolist()])
            for low, high in ((first, key), (key, behind), (behind, last))
        ]
        return "".join(parts), [len(parts[0]), len(parts[0]) + len(parts[1])]

    def _next(self, context: int, position: int) -> str | None:
        """The text of the token after a position; None at a document's end."""
        token = int(self._contexts.next_tokens(np.array([context]))[0, position])
        return None if token < 0 else self._texts[token]
