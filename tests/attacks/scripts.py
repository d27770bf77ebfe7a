"""Texts in scripts other than Latin, read by the demo's tokenizer, which knows their characters as bytes only.

Of an atlas of sixty lines in each, of the first layer: labels must be words or characters of the text, and words that
a page's examples show must be found by the search of its pages, run by node.

python -m tests.attacks.scripts [--small] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import GPT2Config

from atlas_builder.config_file import validate
from atlas_builder.corpus.characters import inner_places
from atlas_builder.corpus.token_text import join_tokens
from atlas_builder.pipeline.build import build
from atlas_builder.shipped import MODEL
from atlas_builder.site.search.postings import _LABEL_FORMS
from tests.support.atlases import records_of
from tests.support.models import save_tiny
from tests.support.refusals import scratch

_LINES, _DRAWN = 60, 200
_LEAST_READABLE = 0.95
_TOKENS = {"vocab_size": 2112, "bos_token_id": 0, "eos_token_id": 0}  # 64 more than the tokenizer has

Slots = Sequence[str]
"""The choices of each part of a sentence, words of one part with | between them, parts of a word with + ."""

SCRIPTS: dict[str, tuple[str, Slots, str]] = {
    "Japanese": (
        "",
        (
            "朝|昨日|夏休み|毎週",
            "、",
            "猫|犬|先生|子供|運転手|新幹線|カメラマン",
            "は|が",
            "東京|京都|図書館|コーヒーショップ|海岸|新しい駅",
            "で|から",
            "静か+に|ゆっくり|みんな+と|一人+で",
            "本|写真|山|電車|魚|空",
            "を",
            "見た|待った|探した|思い出した",
        ),
        "。",
    ),
    "Arabic": (
        " ",
        (
            "كتب|قرأ|شاهد|وجد|رسم",
            "الطالب|المعلّم|الطبيب|جاري|صديقي",
            "كتابًا|قصيدةً|صورةً|رسالةً|خريطةً",
            "جديدة|قديمة|طويلة|جميلة",
            "في",
            "المدينة|المكتبة|القطار|الحديقة|السوق",
            "صباحًا|مساءً|أمس|اليوم",
        ),
        ".",
    ),
    "Hindi": (
        " ",
        (
            "मेरा|उसका|हमारा",
            "मित्र|भाई|पड़ोसी|विद्यार्थी",
            "सुबह|शाम|कल|आज",
            "बाज़ार|पुस्तकालय|स्टेशन|दिल्ली|विद्यालय",
            "में|से",
            "नई|पुरानी|सुन्दर",
            "किताब|चिट्ठी|तस्वीर|साइकिल",
            "ढूँढता|लाता|देखता|बेचता",
            "है",
        ),
        "।",
    ),
    "Thai": (
        "",
        (
            "แม่|น้อง|ครู|เพื่อน|ช่างภาพ",
            "กำลัง|เคย|อยาก",
            "ซื้อ|ทำ|มองหา|เขียน",
            "น้ำ|หนังสือ|ขนม|ภาพ|จดหมาย",
            "ใหม่|เก่า|ใหญ่",
            "ที่",
            "ตลาด|โรงเรียน|กรุงเทพ|สถานี",
            " ",
            "ตอน",
            "เช้า|เย็น|ค่ำ",
        ),
        "",
    ),
    "Emoji": (
        " ",
        (
            "🎉|🐈|🌧️|👩‍💻|🏳️‍🌈",
            "😂|😭|🥳|👍🏽",
            "🍎|🍜|☕|🍰",
            "👨‍👩‍👧|🧑🏿‍🚀|🦉|🐉",
            "🇯🇵|🇫🇷|🇮🇳|🇧🇷",
            "❤️|❤️‍🔥|⭐|1️⃣",
            "🚲|🚄|🛶|✈️",
        ),
        "",
    ),
    "Mixed": (
        " ",
        (
            "print|Tokyo|naïve|Zürich|東京",
            "=|→|is|は",
            "猫|cat|किताब|كتاب|кошка",
            "+|and|と|और|و",
            "café|물고기|ψυχή|😂|新幹線",
            "in|в|में|في",
            "Paris|Москва|दिल्ली|القاهرة|서울",
            "2026|№5|½|100%",
        ),
        "!",
    ),
}

# The pages' own scripts, with as much of a browser as they use.
_SEARCH = """
const vm = require("vm"), fs = require("fs"), site = process.argv[1];
const context = { console, setTimeout, performance };
context.window = context;
const append = (script) => {
  try { run(script.src); } catch { script.onerror(); return; }
  script.onload();
};
context.document = {
  body: { dataset: { root: site + "/" } }, head: { append }, createElement: () => ({ remove() {} }),
};
vm.createContext(context);
const run = (path) => vm.runInContext(fs.readFileSync(path, "utf8"), context);
run(`${site}/assets/constants.js`);
vm.runInContext("Atlas.index = (directory) => { Atlas.directory = directory; };", context);
for (const name of ["search-index", "search-query"]) run(`${site}/assets/${name}.js`);
(async () => {
  const found = [];
  for (const query of JSON.parse(fs.readFileSync(0, "utf8"))) {
    found.push((await context.Atlas.search.find(query, {}, 4, () => true)).hits.length);
  }
  console.log(JSON.stringify(found));
})();
"""


class Counts(NamedTuple):
    """What came of one script."""

    script: str
    labels: int
    unreadable: list[str]
    drawn: int
    lost: list[str]

    @property
    def holds(self) -> bool:
        """Whether nearly all labels can be read and all words were found."""
        return len(self.unreadable) <= (1 - _LEAST_READABLE) * self.labels and not self.lost


def lines_of(script: str, chance: random.Random) -> tuple[list[str], set[str]]:
    """Sentences, and the words that they are made of."""
    gap, slots, end = SCRIPTS[script]
    sentences = [[chance.choice(slot.split("|")) for slot in slots] for _ in range(_LINES)]
    words = {word for sentence in sentences for part in sentence for word in part.split("+") if word.strip()}
    return [
        gap.join(part.replace("+", "") if len(part) > 1 else part for part in one) + end for one in sentences
    ], words


def words_of(label: str) -> Iterator[str]:
    """The words that a label names."""
    form = _LABEL_FORMS.fullmatch(label)
    for part in filter(None, form.groups() if form else [label]):
        yield from (part.split(", ") if part != ", " else [part])


def is_readable(word: str, lines: Sequence[str], inner: Sequence[set[int]]) -> bool:
    """Whether a word stands in the text without cutting a character at its ends, or is a sign for space."""
    if word in {"␣", "↵"}:
        return True
    for line, within in zip(lines, inner, strict=True):
        place = line.find(word)
        while word and place >= 0:
            if place not in within and place + len(word) not in within:
                return True
            place = line.find(word, place + 1)
    return False


def found_by_search(site: Path, queries: Sequence[str]) -> list[bool]:
    """Whether the search of a site's pages finds something for each query."""
    ran = subprocess.run(
        ["node", "-e", _SEARCH, str(site)], input=json.dumps(queries), capture_output=True, text=True, check=True
    )
    return [number > 0 for number in json.loads(ran.stdout)]


def attack(script: str, model: str, folder: Path, drawn: int, *, central: bool) -> Counts:
    """Build the atlas of a script and count; words are drawn from all examples, or from `central` ones."""
    chance = random.Random(script)
    lines, words = lines_of(script, chance)
    corpus = folder / "lines.jsonl"
    corpus.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    config = validate(
        {
            "atlas": {"id": "scripts", "title": script},
            "model": {"name": model},
            "corpus": {"source": "jsonl", "path": str(corpus), "context": 32},
            "units": {"layers": [0]},
            "describe": {"importance": "none"},
        }
    )
    site = build(config, folder / "site")
    records = records_of(site)
    labels = [behaviour["label"] for record in records for behaviour in record["behaviours"]]
    inner = [set(inner_places(line)) for line in lines]
    unreadable = [label for label in labels if not all(is_readable(word, lines, inner) for word in words_of(label))]
    examples = [
        record["examples"][place]
        for record in records
        for place in ({one["central"] for one in record["behaviours"]} if central else range(len(record["examples"])))
    ]
    texts = [join_tokens(example["tokens"]) for example in examples]
    queries: list[str] = []
    while len(queries) < drawn:
        shown = [word for word in sorted(words) if word in chance.choice(texts)]
        queries += chance.sample(shown, min(1, len(shown)))
    lost = [query for query, found in zip(queries, found_by_search(site, queries), strict=True) if not found]
    return Counts(script, len(labels), unreadable, len(queries), lost)


def _report(counts: Sequence[Counts], say: Callable[[str], object] = print) -> None:
    say("| script | labels | readable | words drawn | found | holds |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for one in counts:
        readable, found = one.labels - len(one.unreadable), one.drawn - len(one.lost)
        share = readable / max(1, one.labels)
        say(
            f"| {one.script} | {one.labels:,} | {readable:,} ({share:.1%}) | {one.drawn} | {found} | "
            f"{'yes' if one.holds else 'NO'} |"
        )
    for one in counts:
        for label in sorted(set(one.unreadable))[:10]:
            say(f"{one.script}: the label {label!r} is no word or character of the text")
        for word in sorted(set(one.lost)):
            say(f"{one.script}: search does not find {word!r}")


def main(arguments: list[str] | None = None) -> int:
    """Try every script, or some; 1 if any does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny random model, one text, and fewer words")
    parser.add_argument("--model", default=str(MODEL), help="folder of a model; by default the demo's")
    parser.add_argument("--script", choices=sorted(SCRIPTS), action="append", help="one script; by default all")
    asked = parser.parse_args(arguments)
    if not shutil.which("node"):
        print("search is tried by node: install it first.", file=sys.stderr)
        return 2
    counts = []
    with scratch("scripts") as name:
        model = asked.model
        if asked.small:
            model = f"{name}/model"
            # Few neurons show few texts, so that words are drawn from those that the index shows, central ones.
            save_tiny(GPT2Config(n_layer=1, n_head=2, n_embd=16, n_inner=24, n_positions=64, **_TOKENS), Path(model))
        for script in asked.script or (["Mixed"] if asked.small else SCRIPTS):
            folder = Path(name) / script
            folder.mkdir()
            counts.append(attack(script, model, folder, _DRAWN // 4 if asked.small else _DRAWN, central=asked.small))
    _report(counts)
    return 0 if all(one.holds for one in counts) else 1


if __name__ == "__main__":
    sys.exit(main())
