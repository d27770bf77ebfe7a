"""English text for the atlas of SmolLM2, a document a line: a handbook, short quotations and definitions.

    python site_config/smollm2_text.py FOLDER > english.jsonl

FOLDER holds the Debian packages debian-handbook, fortunes and wordnet-base as `dpkg -x` unpacks them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser

QUOTATIONS = 3000
DEFINITIONS = 4000
DEFINITIONS_TOGETHER = 20  # one alone is shorter than what comes before and after a key token


def handbook(share: Path) -> Iterator[tuple[str, str]]:
    """The sections of The Debian Administrator's Handbook, without its navigation."""
    for page in sorted((share / "doc/debian-handbook/html/en-US").glob("*.html")):
        tree = LexborHTMLParser(page.read_text(encoding="utf-8"))
        for node in tree.css("head, #banner, #title, .docnav, .toc"):
            node.decompose()
        for block in tree.css("div, h1, h2, h3, h4, h5, p, pre, li, dt, dd"):
            block.insert_after("\n")
        text = tree.body.text() if tree.body else ""
        lines = (" ".join(line.split()) for line in text.splitlines())
        yield f"handbook/{page.stem}", "\n".join(line for line in lines if line)


def quotations(share: Path) -> Iterator[tuple[str, str]]:
    """Those of fortunes that have more than 80 characters; pictures made of characters are left out."""
    for file in sorted((share / "games/fortunes").iterdir()):
        if not file.suffix and file.stem != "ascii-art":
            for number, text in enumerate(file.read_text(encoding="utf-8").split("\n%\n")):
                if len(text) > 80:
                    yield f"fortunes/{file.name}#{number}", text.strip()


def definitions(share: Path) -> Iterator[tuple[str, str]]:
    """WordNet's nouns, each with its definition."""
    for number, line in enumerate((share / "wordnet/data.noun").read_text(encoding="utf-8").splitlines()):
        head, bar, gloss = line.partition(" | ")
        if bar and not head.startswith("  "):
            yield f"wordnet#{number}", f"{head.split()[4].replace('_', ' ')}: {gloss.strip()}"


def main(folder: Path) -> None:
    """Print the text, mixed, in the same order every time."""
    share, draw = folder / "usr/share", random.Random(0)
    words = draw.sample(list(definitions(share)), DEFINITIONS)
    documents = [*handbook(share), *draw.sample(list(quotations(share)), QUOTATIONS)]
    for first in range(0, DEFINITIONS, DEFINITIONS_TOGETHER):
        together = words[first : first + DEFINITIONS_TOGETHER]
        documents.append((together[0][0], "\n".join(text for _, text in together)))
    draw.shuffle(documents)
    for name, text in documents:
        print(json.dumps({"name": name, "text": text}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
