"""A model trained on a text with a planted association: the association is named, another word is not."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from atlas_builder.collect.results import Collected
from atlas_builder.config_file import validate
from atlas_builder.demo.train import BOS, Recipe, join, save_model, train_model
from atlas_builder.describe.results import Described
from atlas_builder.pipeline.build import build
from atlas_builder.workspace import work_folder

PLANTED, UNRELATED, PREDICTED = "amber", "birch", "violet"
_FILLERS = (
    "stone river cloud table paper green early quiet motor letter "
    "garden window silver hammer market bottle summer winter yellow carpet "
    "pencil button basket candle mirror saddle tunnel valley walnut zipper"
)
FILLERS = _FILLERS.split()
WORDS = (BOS, ".", PLANTED, UNRELATED, PREDICTED, *FILLERS)


def _sentence(chance: np.random.Generator) -> str:
    """`amber` stands before 95 in 100 of `violet`, `birch` as often as it, wherever `violet` comes or not."""
    words = [FILLERS[place] for place in chance.integers(0, len(FILLERS), 6)]
    comes = chance.random() < 0.3
    planted, unrelated = chance.permutation(5)[:2]
    if chance.random() < (0.95 if comes else 0.05):
        words[planted] = PLANTED
    if chance.random() < 0.3 * 0.95 + 0.7 * 0.05:
        words[unrelated] = UNRELATED
    if comes:
        words[5] = PREDICTED
    return " ".join([*words, "."])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, trained on such sentences, and the text."""
    folder = tmp_path_factory.mktemp("planted")
    chance = np.random.default_rng(0)
    texts = [" " + " ".join(_sentence(chance) for _ in range(20)) for _ in range(500)]
    # Of the words alone: the mean over a vocabulary that is mostly unused would hide what goes up or down with them.
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=BOS))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    recipe = Recipe(len(WORDS), layers=2, heads=2, width=48, context=48, batch=24, steps=500, warm_up=40)
    encoded = [np.array(encoding.ids, np.int64) for encoding in tokenizer.encode_batch(texts)]
    stream = join(encoded, 0)
    save_model(train_model(stream, stream[:2000], 0, recipe), tokenizer, {}, folder / "model")
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return folder


def test_the_planted_word_is_named_and_the_unrelated_one_is_not(folder: Path, pool: Executor) -> None:
    config = validate(
        {
            "model": {"name": str(folder / "model")},
            "corpus": {"source": "jsonl", "path": str(folder / "text.jsonl"), "context": 48},
            "units": {"kind": "logits", "tokens": [PREDICTED]},
            "examples": {"window": [6, 3]},
            "describe": {"importance": "none", "prediction": False},
        }
    )
    output = folder / "atlas"
    build(config, output, executor=pool, until="describe")
    associations = Described(2, work_folder(output) / "describe").associations
    assert associations is not None
    texts = Collected(work_folder(output) / "collect").texts_read
    named = {texts[one["token"]].strip(): one for one in associations[0]["found"]}
    assert PLANTED in named
    assert named[PLANTED]["effect"] > 0.05
    assert named[PLANTED]["top"] > named[PLANTED]["middle"]
    assert UNRELATED not in named
