"""Families of models, each built whole: a tiny model, its atlas, `verify`, and the same numbers by plain hooks.

python -m tests.attacks.families [--small] [--only NAME] [--kind logits]

With `--kind logits` the units are output neurons: of mixtures of experts and of models without MLPs too, of none that
predicts no next token.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from atlas_builder.config_file import validate
from atlas_builder.errors import AtlasError
from atlas_builder.pipeline.build import build
from atlas_builder.progress import Progress
from atlas_builder.site.hosting.check import check
from atlas_builder.verify.run import verify
from tests.support.atlases import write_words
from tests.support.families import FAMILIES, differences, save_family, settings_of
from tests.support.tries import problems_of_each, say_failed

_SMALL = ("opt_projected", "mixtral")
_UNITS = {"kind": "logits", "top": 6}
_PREDICTS_NONE = "no unembedding that predicts the next token"


def refusal_of(name: str, kind: str) -> str | None:
    """The sentence, in part, with which a family is refused; None where it works."""
    family = FAMILIES[name]
    if kind == "mlp":
        return family.refused
    if family.auto == "AutoModelForMaskedLM" and family.refused is None:
        return _PREDICTS_NONE
    return None if family.refused and ("MLP" in family.refused or "experts" in family.refused) else family.refused


def problems_of(name: str, kind: str, root: Path, pool: Executor) -> list[str]:
    """What is wrong with how a family ended; empty where it works, or is refused with its sentence."""
    refused, folder = refusal_of(name, kind), root / "models" / name
    save_family(name, folder)
    settings = settings_of(name, folder, root / "text" / "words.jsonl")
    settings |= {} if kind == "mlp" else {"units": _UNITS}
    try:
        site = build(validate(settings), root / name, executor=pool)
    except AtlasError as error:
        is_refusal = refused is not None and refused in str(error) and "\n" not in str(error)
        return [] if is_refusal else [f"refused: {error}"]
    if refused is not None:
        return ["built, though it should be refused"]
    found = differences(name, folder) if kind == "mlp" else []
    found += verify(site, units=6).problems
    return found + check(site, Progress(quiet=True)).problems


def attack(small: bool, only: str | None, kind: str) -> int:
    """Build every family, print a table, and return how many failed."""
    names = [only] if only else list(_SMALL if small else FAMILIES)
    refused = sum(refusal_of(name, kind) is not None for name in names)
    print("| family | outcome | seconds |\n| --- | --- | ---: |")
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as pool:
        root = Path(scratch)
        write_words(root / "text")

        def say(name: str, problems: list[str], seconds: float) -> None:
            outcome = "failed" if problems else "refused" if refusal_of(name, kind) else "works"
            print(f"| {FAMILIES[name].title} | {outcome} | {seconds:.1f} |", flush=True)

        failed = problems_of_each(names, lambda name: problems_of(name, kind, root, pool), say)
    print("\n| kind | tried | held | failed |\n| --- | ---: | ---: | ---: |")
    for outcome, of_kind in (("works", False), ("refused", True)):
        tried = [name for name in names if (refusal_of(name, kind) is not None) == of_kind]
        bad = sum(name in failed for name in tried)
        print(f"| {outcome} | {len(tried)} | {len(tried) - bad} | {bad} |")
    count = say_failed(len(names), failed)
    print(f"\n{len(names) - refused} families with an atlas, {refused} refused before the pass.")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="two families")
    parser.add_argument("--only", default=None, choices=list(FAMILIES), help="one family")
    parser.add_argument("--kind", default="mlp", choices=["mlp", "logits"], help="kind of units")
    chosen = parser.parse_args()
    sys.exit(1 if attack(chosen.small, chosen.only, chosen.kind) else 0)
