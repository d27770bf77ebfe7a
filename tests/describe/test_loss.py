"""The loss of a model on the text of its atlas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from atlas_builder.corpus import contexts
from atlas_builder.describe import loss
from atlas_builder.models import language_model
from atlas_builder.progress import Progress
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure


@pytest.mark.parametrize("taken", [loss.CONTEXTS, 7])
def test_the_loss_is_that_of_plain_loops(
    taken: int, tiny_site: Path, gpt2_folder: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CONTEXTS", taken)
    read = contexts.read_contexts(work_folder(tiny_site) / "collect" / "contexts")
    loaded = language_model.load_model(configure().model)
    found = loss.measure_loss(loaded, read, "cpu", Progress(quiet=True))
    plain = AutoModelForCausalLM.from_pretrained(gpt2_folder).eval()
    losses = []
    for context in sorted({round_down * (len(read) - 1) // max(taken - 1, 1) for round_down in range(taken)}):
        tokens = [loaded.bos, *read.text_of(context).tolist()]
        with torch.inference_mode():
            chances = plain(torch.tensor([tokens])).logits[0].log_softmax(-1)
        losses += [-float(chances[place, tokens[place + 1]]) for place in range(len(tokens) - 1)]
    assert found is not None
    assert found.tokens == len(losses)
    assert found.nats == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_atlas_says_its_models_loss(tiny_site: Path) -> None:
    said = json.loads((tiny_site / "atlas.json").read_bytes())["model"]["loss"]
    assert said["nats"] > 1
    assert said["tokens"] > 100
    assert f"nats a token, on {said['tokens']:,} tokens of this text" in (tiny_site / "index.html").read_text()
