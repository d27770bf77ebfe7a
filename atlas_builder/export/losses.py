"""What each format has no place for, a sentence each: said by the commands, written beside the files, in the guide."""

from __future__ import annotations

LOSSES: dict[str, tuple[str, ...]] = {
    "circuit-tracer": (
        "Of a behaviour only its label, coverage and examples: not its size, stability, tokens, graph and neighbours.",
        "Of a band only its limits and examples: not how many tokens were drawn from it, nor how new they are.",
        "Of an example only tokens, activations and key token: not its document, position, role and token importance.",
        "Of direct logit effects only the tokens, not how strong they are.",
        "Percentiles and histogram are interpolated within the at most 32 bins of the record.",
        "Line breaks and tabs are written as ⏎, ↵ and →, other invisible characters by their code points.",
        "All other numbers and texts of the page: measures, predictions, steering, associations, explanations.",
        "Colours go from the minimum to the maximum, so of units with both signs zero is not white.",
    ),
}
"""By the name of the format, as in the command `export`."""
